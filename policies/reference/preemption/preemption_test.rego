# What cases cannot show: the terms of the rule, and params that no schema would let pass. Run by
# `placet test`.
package placet.preemption_test

import rego.v1

import data.placet.preemption

base := {
	"victim_classes": ["EXTERNAL_COMMERCIAL"],
	"grace_seconds": 300,
	"min_runtime_seconds": 1800,
	"max_victims": 64,
}

# Own research that may displace, in a cluster.
asking_in(cluster) := {
	"priority_class": "INTERNAL_RESEARCH",
	"tenant": {
		"id": "lab",
		"kind": "OWN",
		"priority_classes": ["INTERNAL_RESEARCH"],
	},
	"cluster": {"id": cluster},
	"lease": {"may_preempt": true, "duration_seconds": 600},
}

# Whether the policy refuses the request, with just these codes.
refuses(codes) if codes == {denial.code | some denial in preemption.deny}

# The params that are told to be wrong, with params laid over those above.
wrong_params(over) := {wrong.path |
	some wrong in preemption.params_wrong(object.union(base, over))
}

test_the_terms_are_those_of_the_params if {
	rule := preemption.preemption with input as asking_in("fra") with data.params as base
	rule == base
}

test_a_site_promises_more if {
	site := {"clusters": ["fra"], "grace_seconds": 600, "max_victims": 2}
	rule := preemption.preemption with input as asking_in("fra")
		with data.params as object.union(base, {"terms": [site]})
	rule == object.union(base, {"grace_seconds": 600, "max_victims": 2})
}

test_no_site_promises_less if {
	site := {
		"clusters": ["fra"],
		"grace_seconds": 0,
		"min_runtime_seconds": 0,
		"max_victims": 1000,
	}
	rule := preemption.preemption with input as asking_in("fra")
		with data.params as object.union(base, {"terms": [site]})
	rule == base
}

test_of_two_promises_the_better_counts if {
	one := {"clusters": ["fra", "sto"], "min_runtime_seconds": 7200, "max_victims": 8}
	other := {"clusters": ["fra"], "min_runtime_seconds": 3600, "max_victims": 4}
	rule := preemption.preemption with input as asking_in("fra")
		with data.params as object.union(base, {"terms": [one, other]})
	rule == object.union(base, {"min_runtime_seconds": 7200, "max_victims": 4})
}

test_the_promise_of_another_site_does_not_count if {
	site := {"clusters": ["sto"], "grace_seconds": 600}
	rule := preemption.preemption with input as asking_in("fra")
		with data.params as object.union(base, {"terms": [site]})
	rule == base
}

test_without_a_list_every_own_tenant_is_a_preemptor if {
	refuses(set()) with input as asking_in("fra") with data.params as base
}

test_who_may_not_displace_has_no_rule if {
	sold := object.union(asking_in("fra"), {"priority_class": "EXTERNAL_COMMERCIAL"})
	not has_rule with input as sold with data.params as base
	calm := object.union(asking_in("fra"), {"lease": {"may_preempt": false}})
	not has_rule with input as calm with data.params as base
}

test_a_hint_names_the_classes_that_there_are if {
	both := {"priority_classes": ["EXTERNAL_COMMERCIAL", "INTERNAL_RESEARCH"]}
	told := class_hints(both, "OTHER")
	told == {"ask in class EXTERNAL_COMMERCIAL or INTERNAL_RESEARCH"}
	class_hints({"priority_classes": []}, "INTERNAL_RESEARCH") == {"none"}
}

# Hints of the denials of a class, for a tenant that displaces nobody.
class_hints(tenant, class) := hints if {
	asked := object.union(
		asking_in("fra"),
		{"tenant": tenant, "priority_class": class, "lease": {"may_preempt": false}},
	)
	refused := preemption.deny with input as asked with data.params as base
	hints := {object.get(denial, "hint", "none") | some denial in refused}
}

test_a_param_left_out_leaves_nobody_to_displace if {
	every name in object.keys(base) {
		left := object.remove(base, [name])
		not has_rule with input as asking_in("fra") with data.params as left
	}
}

test_a_site_does_not_make_up_for_a_param_left_out if {
	site := {"clusters": ["fra"], "grace_seconds": 600}
	left := object.union(object.remove(base, ["grace_seconds"]), {"terms": [site]})
	not has_rule with input as asking_in("fra") with data.params as left
}

has_rule if preemption.preemption

test_a_grace_as_long_as_the_run_time_is_right if {
	wrong_params({"grace_seconds": 1800}) == set()
}

test_a_grace_a_second_longer_is_wrong if {
	wrong_params({"grace_seconds": 1801}) == {"grace_seconds"}
}

test_the_terms_of_a_site_are_held_to_the_same if {
	wrong_params({"terms": [{"clusters": ["fra"], "grace_seconds": 1801}]}) == {
		"terms[0].grace_seconds",
	}
	wrong_params({"terms": [
		{"clusters": ["fra"], "max_victims": 1},
		{"clusters": ["fra"], "grace_seconds": 3601, "min_runtime_seconds": 3600},
	]}) == {"terms[1].grace_seconds"}
	wrong_params({"terms": [
		{"clusters": ["fra"], "grace_seconds": 3600, "min_runtime_seconds": 3600},
	]}) == set()
}

test_a_notice_is_no_longer_than_the_run_it_ends if {
	kept := {"default": {"notice_seconds": 60, "min_runtime_seconds": 60}}
	wrong_params({"sla": kept}) == set()
	broken := {"gold": {"notice_seconds": 61, "min_runtime_seconds": 60}}
	wrong_params({"sla": broken}) == {"sla.gold.notice_seconds"}
}

test_the_rule_spares_whom_the_params_spare if {
	sparing := {
		"protected_tenants": ["acme"],
		"cool_down_seconds": 60,
		"max_victims_per_tenant": 2,
	}
	rule := preemption.preemption with input as asking_in("fra")
		with data.params as object.union(base, sparing)
	rule == object.union(base, sparing)
	one := preemption.preemption with input as asking_in("fra")
		with data.params as object.union(base, {"cool_down_seconds": 60})
	one == object.union(base, {"cool_down_seconds": 60})
}

levels := {"sla": {
	"default": {"notice_seconds": 1, "min_runtime_seconds": 2},
	"gold": {"notice_seconds": 3, "min_runtime_seconds": 4},
}}

# Sold work of a tenant.
sold_to(tenant) := {
	"priority_class": "EXTERNAL_COMMERCIAL",
	"tenant": object.union({"id": "acme", "priority_classes": ["EXTERNAL_COMMERCIAL"]}, tenant),
	"cluster": {"id": "fra"},
	"lease": {"may_preempt": false, "duration_seconds": 600},
}

test_sold_work_is_promised_what_its_service_level_says if {
	over := object.union(base, levels)
	gold := preemption.terms with input as sold_to({"sla": "gold"}) with data.params as over
	gold == levels.sla.gold
	none := preemption.terms with input as sold_to({}) with data.params as over
	none == levels.sla["default"]
}

test_a_service_level_that_nobody_wrote_down_is_refused if {
	over := object.union(base, levels)
	refuses({"SLA_UNKNOWN"}) with input as sold_to({"sla": "bronze"}) with data.params as over
	refuses({"SLA_UNKNOWN"}) with input as sold_to({"sla": "gold"}) with data.params as base
	not is_promised with input as sold_to({"sla": "bronze"}) with data.params as over
}

test_without_service_levels_nothing_is_promised if {
	refuses(set()) with input as sold_to({}) with data.params as base
	not is_promised with input as sold_to({}) with data.params as base
}

test_what_nobody_may_displace_is_promised_nothing if {
	over := object.union(base, levels)
	own := object.union(sold_to({"sla": "bronze", "priority_classes": ["INTERNAL_RESEARCH"]}), {
		"priority_class": "INTERNAL_RESEARCH",
	})
	refuses(set()) with input as own with data.params as over
	not is_promised with input as own with data.params as over
}

is_promised if preemption.terms
