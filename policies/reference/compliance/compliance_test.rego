# What cases cannot show: the params of obligations, attestations with gaps, answers of the largest
# size, and params that are absent or wrong. Run by `placet test`.
package placet.compliance_test

import rego.v1

import data.placet.compliance

base := {
	"required": {
		"OWN": {"tenant": [], "cluster": []},
		"CUSTOMER": {"tenant": ["ISO27001"], "cluster": []},
	},
	"audit": {"frameworks": ["HIPAA"], "level": "full"},
	"export_control": [],
}

# Attested under a framework from one second up to another.
attested(framework, from, until) := {
	"framework": framework,
	"valid_from": from,
	"valid_until": until,
}

# A customer's lease over [100, 200), with attestations of the customer and of its cluster.
lease(of_tenant, of_cluster) := {
	"time": 100,
	"tenant": {
		"id": "acme",
		"kind": "CUSTOMER",
		"attestations": of_tenant,
		"licences": [],
		"licensed_models": [],
	},
	"cluster": {"id": "fra", "jurisdiction": "DE", "attestations": of_cluster},
	"datasets": [],
	"models": [],
	"lease": {
		"start": 100,
		"duration_seconds": 100,
		"gpu_model": "H100",
		"checkpoint_jurisdictions": [],
		"egress_jurisdictions": [],
	},
}

good := lease([attested("ISO27001", 0, 1000)], [])

codes := {denial.code | some denial in compliance.deny}

hints := {denial.hint | some denial in compliance.deny}

# Params of an obligation.
obliged(id) := [one.params | some one in compliance.obligations; one.id == id][0]

# --- attestations

whole := object.union(base, {"cover_whole_work": ["ISO27001"]})

test_an_attestation_may_be_made_of_several_without_a_gap if {
	every attestations in [
		[attested("ISO27001", 0, 200)],
		[attested("ISO27001", 0, 150), attested("ISO27001", 150, 200)],
		[attested("ISO27001", 0, 150), attested("ISO27001", 120, 200)],
		[attested("ISO27001", 150, 999), attested("ISO27001", 0, 110), attested("ISO27001", 90, 160)],
	] {
		found := codes with input as lease(attestations, []) with data.params as whole
		found == set()
	}
}

test_the_first_gap_bounds_the_work if {
	gaps := [attested("ISO27001", 0, 130), attested("ISO27001", 131, 150), attested("SOC2", 0, 999)]
	codes == {"ATTESTATION_ENDS_EARLY"} with input as lease(gaps, []) with data.params as whole
	hints == {"ask for at most 30 s, or have the renewal recorded in the facts"}
		with input as lease(gaps, [])
		with data.params as whole
}

test_what_is_not_valid_at_the_start_is_not_early if {
	codes == {"ATTESTATION_EXPIRED"} with input as lease([attested("ISO27001", 0, 100)], [])
		with data.params as whole
}

test_what_begins_and_ends_during_the_work_is_to_come_and_nothing_else if {
	later := [attested("ISO27001", 150, 180)]
	codes == {"ATTESTATION_NOT_YET_VALID"} with input as lease(later, []) with data.params as whole
}

test_what_ended_before_the_work_is_no_gap if {
	renewed := [attested("ISO27001", 0, 50), attested("ISO27001", 90, 999)]
	codes == set() with input as lease(renewed, []) with data.params as whole
	at_its_end := [attested("ISO27001", 0, 100), attested("ISO27001", 100, 999)]
	codes == set() with input as lease(at_its_end, []) with data.params as whole
}

test_another_framework_that_ends_is_no_gap if {
	other := [attested("ISO27001", 0, 999), attested("HIPAA", 0, 150)]
	codes == set() with input as lease(other, []) with data.params as whole
}

test_frameworks_of_the_tenant_ask_for_those_of_the_cluster if {
	also := object.union(base, {"required_by_framework": {"HIPAA": ["SOC2"], "X": ["Y"]}})
	tenant := [attested("ISO27001", 0, 1000), attested("HIPAA", 0, 1)]
	codes == {"ATTESTATION_MISSING"} with input as lease(tenant, []) with data.params as also
	codes == set() with input as lease(tenant, [attested("SOC2", 0, 1000)])
		with data.params as also
	codes == set() with input as good with data.params as also
}

# --- encryption and audit

leveled := object.union(base, {"encryption": {
	"regulated": "CONFIDENTIAL",
	"levels": {
		"INTERNAL": {"at_rest": "operator-keys", "in_transit": "tls"},
		"RESTRICTED": {"at_rest": "tenant-keys", "in_transit": "mutual-tls"},
	},
}})

reading(class) := object.union(good, {"datasets": [{"classification": class}]})

test_a_class_without_a_level_has_that_of_the_next_lower if {
	every class, keys in {"INTERNAL": "operator-keys", "CONFIDENTIAL": "operator-keys"} {
		found := obliged("encryption") with input as reading(class) with data.params as leveled
		found == {"at_rest": keys, "in_transit": "tls"}
	}
	most := obliged("encryption") with input as reading("RESTRICTED") with data.params as leveled
	most == {"at_rest": "tenant-keys", "in_transit": "mutual-tls"}
	count(compliance.obligations) == 0 with input as reading("PUBLIC") with data.params as leveled
}

regulated := lease([attested("ISO27001", 0, 1000), attested("HIPAA", 0, 1)], [])

test_regulated_work_counts_as_of_a_class if {
	found := obliged("encryption") with input as regulated with data.params as leveled
	found.at_rest == "operator-keys"
	unclear := object.union(leveled, {"encryption": {"regulated": "SECRET"}})
	most := obliged("encryption") with input as regulated with data.params as unclear
	most.at_rest == "tenant-keys"
}

test_sensitive_work_is_audited_from_its_class_on if {
	audit := object.union(base, {"audit": {"from_classification": "CONFIDENTIAL"}})
	level := obliged("audit.level") with input as reading("CONFIDENTIAL") with data.params as audit
	level == {"level": "full"}
	count(compliance.obligations) == 0 with input as reading("INTERNAL") with data.params as audit
}

test_without_params_nothing_is_encrypted_and_regulated_work_is_audited if {
	ids := {one.id | some one in compliance.obligations} with input as regulated
		with data.params as base
	ids == {"audit.level"}
}

# --- places

test_a_cluster_under_embargo if {
	codes == {"DESTINATION_EMBARGOED"} with input as good
		with data.params as object.union(base, {"embargoed": ["DE"]})
}

test_weights_are_held_to_every_entry_that_names_their_class if {
	model := {"id": "m", "owner": "acme", "classification": "RESTRICTED"}
	using := object.union(good, {"models": [model]})
	here := {"classifications": ["RESTRICTED"], "cluster_jurisdictions": ["DE", "US"]}
	there := {"classifications": ["RESTRICTED"], "cluster_jurisdictions": ["US"]}
	other := {"classifications": ["PUBLIC"], "cluster_jurisdictions": []}
	codes == set() with input as using
		with data.params as object.union(base, {"weights_control": [here, other]})
	codes == {"WEIGHTS_EXPORT_CONTROLLED"} with input as using
		with data.params as object.union(base, {"weights_control": [here, there]})
}

# --- params

# Names of the longest that there are.
long(at) := substring(sprintf("%d%s", [at, concat("", filling)]), 0, 128)

filling := ["x" | some _ in numbers.range(1, 128)]

test_the_largest_answer_is_read if {
	models := [model |
		some at in numbers.range(1, 32)
		model := {"id": long(at), "owner": long(at), "classification": "RESTRICTED"}
	]
	large := object.union(lease([], []), {
		"tenant": {"id": long(0)},
		"cluster": {"id": long(0)},
		"models": models,
		"lease": {"checkpoint_jurisdictions": ["KP", "IR", "CU"]},
	})
	all := compliance.deny with input as large with data.params as object.union(base, {
		"embargoed": ["DE", "KP", "IR", "CU"],
		"weights_control": [{"classifications": ["RESTRICTED"], "cluster_jurisdictions": []}],
		"export_control": [{"cluster_jurisdictions": [], "tenant_jurisdictions": []}],
	})
	count(all) <= 32
	text := [count(part) |
		some denial in all
		some name in ["code", "message", "field", "hint"]
		part := object.get(denial, name, "")
	]
	sum(text) <= 8192
}

wrong_params(params) := {wrong.path: wrong.message | some wrong in compliance.params_wrong(params)}

test_what_is_under_embargo_is_in_no_list if {
	control := {
		"gpu_models": ["H100"],
		"cluster_jurisdictions": ["DE", "KP"],
		"tenant_jurisdictions": ["IR"],
	}
	weights := {"classifications": ["RESTRICTED"], "cluster_jurisdictions": ["KP", "DE"]}
	params := {"export_control": [control], "weights_control": [weights]}
	wrong_params(object.union(params, {"embargoed": ["KP", "IR"]})) == {
		"export_control[0].cluster_jurisdictions[1]": "is KP, which is under embargo",
		"export_control[0].tenant_jurisdictions[0]": "is IR, which is under embargo",
		"weights_control[0].cluster_jurisdictions[0]": "is KP, which is under embargo",
	}
	wrong_params(params) == {}
}

levels(rest, transit) := {"encryption": {"levels": {
	"INTERNAL": {"at_rest": "tenant-keys", "in_transit": "tls"},
	"RESTRICTED": {"at_rest": rest, "in_transit": transit},
}}}

test_encryption_does_not_get_weaker_with_the_class if {
	wrong_params(levels("tenant-keys", "tls")) == {}
	wrong_params(levels("tenant-keys", "mutual-tls")) == {}
	wrong_params(levels("operator-keys", "mutual-tls")) == {
		"encryption.levels.RESTRICTED.at_rest": "is operator-keys, weaker than that of INTERNAL",
	}
}

test_what_is_covered_is_required_of_somebody if {
	params := {
		"required": {
			"OWN": {"tenant": [], "cluster": []},
			"CUSTOMER": {"tenant": ["A"], "cluster": ["B"]},
		},
		"required_by_framework": {"X": ["C"]},
	}
	wrong_params(object.union(params, {"cover_whole_work": ["A", "B", "C", "X"]})) == {
		"cover_whole_work[3]": "is X, which nothing requires",
	}
	wrong_params({"cover_whole_work": ["A"]}) == {
		"cover_whole_work[0]": "is A, which nothing requires",
	}
}
