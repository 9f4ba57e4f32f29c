# What cases cannot show: where results may go, places in facts that there are not, answers of the
# largest size, and params that are absent or wrong. Run by `placet test`.
package placet.residency_test

import rego.v1

import data.placet.residency

base := {"adequate": ["DE", "JP"]}

# A lease in Germany that reads datasets and writes to jurisdictions, for a tenant bound to others.
lease(allowed, datasets, checkpoints) := {
	"cluster": {"id": "fra", "jurisdiction": "DE"},
	"tenant": {"id": "acme", "allowed_jurisdictions": allowed},
	"datasets": datasets,
	"lease": {"checkpoint_jurisdictions": checkpoints, "egress_jurisdictions": []},
}

listed(id, jurisdictions) := {"id": id, "personal": false, "jurisdictions": jurisdictions}

personal(id, jurisdictions) := {"id": id, "personal": true, "jurisdictions": jurisdictions}

codes := {denial.code | some denial in residency.deny}

messages := {denial.message | some denial in residency.deny}

egress := [obligation.params | some obligation in residency.obligations][0]

test_results_may_go_where_all_allow_it if {
	bound := lease(["DE", "SE", "FI"], [listed("a", ["SE", "DE", "US"]), listed("b", [])], [])
	egress == {"allow": "DE,SE"} with input as bound with data.params as base
}

test_personal_data_without_a_list_goes_where_it_is_protected if {
	egress == {"allow": "DE,JP"} with input as lease([], [personal("a", [])], [])
		with data.params as base
}

test_who_is_not_bound_is_not_kept_in if {
	count(residency.obligations) == 0 with input as lease([], [listed("a", [])], [])
		with data.params as base
}

test_keeping_in_can_be_left_to_others if {
	count(residency.obligations) == 0 with input as lease(["DE"], [], [])
		with data.params as object.union(base, {"oblige_egress": false})
}

# So many made-up codes, the first of them DE.
places(count_of) := array.concat(["DE"], [code |
	some at in numbers.range(1, count_of - 1)
	code := sprintf("Z%d", [at])
])

test_long_lists_take_several_params if {
	few := egress with input as lease(places(64), [], []) with data.params as base
	object.keys(few) == {"allow"}
	more := egress with input as lease(places(65), [], []) with data.params as base
	object.keys(more) == {"allow", "allow.2"}
	count(split(more.allow, ",")) == 64
	more["allow.2"] == "Z9"
	anywhere := countries
	all := egress with input as lease(anywhere, [], []) with data.params as base
	object.keys(all) == {"allow", "allow.2", "allow.3", "allow.4"}
	every _, value in all {
		count(value) <= 256
	}
}

test_long_lists_are_cut_and_counted if {
	some twelve in messages with input as lease(array.slice(places(13), 1, 13), [], [])
		with data.params as base
	endswith(twelve, "only run in Z1, Z10, Z11, Z12, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9")
	some more in messages with input as lease(array.slice(places(14), 1, 14), [], [])
		with data.params as base
	endswith(more, "only run in Z1, Z10, Z11, Z12, Z13, Z2, Z3, Z4, Z5, Z6, Z7, Z8 and 1 more")
}

test_long_names_are_cut if {
	every name, told in {"ABCDEFGH": "ABCDEFGH", "ABCDEFGHI": "ABCDEFGH..."} {
		found := messages with input as lease([], [], [name]) with data.params as base
		found == {sprintf("there is no jurisdiction %s, where results are to be written", [told])}
	}
}

test_two_without_a_common_place_are_named if {
	apart := lease([], [listed("a", ["DE"]), listed("b", ["US"])], [])
	told := "dataset a (only DE) and dataset b (only US) may nowhere be processed together"
	told in messages with input as apart with data.params as base
	bound := lease(["US"], [personal("a", [])], [])
	some message in messages with input as bound with data.params as base
	startswith(message, "tenant acme (only US) and personal dataset a (only DE, JP) may nowhere")
}

test_three_without_a_common_place_are_named if {
	three := lease([], [
		listed("a", ["DE", "SE"]),
		listed("b", ["SE", "JP"]),
		listed("c", ["JP", "DE"]),
	], [])
	told := concat("", [
		"dataset a (only DE, SE), dataset b (only JP, SE), dataset c (only DE, JP)",
		" may nowhere be processed together",
	])
	told in messages with input as three with data.params as base
	four := lease(["JP", "SE", "DE"], [
		listed("a", ["DE", "SE"]),
		listed("b", ["SE", "JP"]),
		listed("c", ["JP", "DE"]),
	], [])
	some message in messages with input as four with data.params as base
	endswith(message, ", 1 more may nowhere be processed together")
}

test_one_alone_excludes_nobody if {
	nowhere := {"adequate": []}
	codes == {"RESIDENCY_PERSONAL"} with input as lease([], [personal("a", [])], [])
		with data.params as nowhere
}

test_a_cluster_in_no_place_is_refused if {
	nowhere := object.union(
		lease([], [], []),
		{"cluster": {"id": "x", "jurisdiction": "AA"}},
	)
	codes == {"JURISDICTION_UNKNOWN"} with input as nowhere with data.params as base
	codes == set() with input as nowhere
		with data.params as object.union(base, {"more_jurisdictions": ["AA"]})
}

test_a_code_is_no_part_of_the_list_of_codes if {
	every code in ["D", "E|", "|D", "", "|", "DE|DJ", "de", "DEU"] {
		found := codes with input as lease([], [], [code]) with data.params as base
		found == {"JURISDICTION_UNKNOWN"}
	}
}

countries := regex.split(`[|\s]+`, trim(residency.countries, "|\n"))

test_there_are_249_countries if count(countries) == 249

test_without_params_personal_data_goes_nowhere if {
	codes == {"RESIDENCY_PERSONAL"} with input as lease([], [personal("a", [])], [])
		with data.params as {}
}

# Names of the longest that there are.
long(at) := substring(sprintf("%d%s", [at, concat("", filling)]), 0, 128)

filling := ["x" | some _ in numbers.range(1, 128)]

test_the_largest_answer_is_read if {
	everywhere := array.slice(places(200), 1, 200)
	datasets := [dataset |
		some at in numbers.range(1, 32)
		dataset := personal(long(at), array.slice(everywhere, at * 3, (at * 3) + 3))
	]
	writes := [code | some at in numbers.range(100, 131); code := long(at)]
	asked := object.union(
		lease(array.slice(everywhere, 150, 199), datasets, writes),
		{
			"cluster": {"id": long(0), "jurisdiction": "US"},
			"lease": {"egress_jurisdictions": writes},
			"tenant": {"id": long(0)},
		},
	)
	all := residency.deny with input as asked with data.params as base
	count(all) <= 32
	every denial in all {
		count(denial.message) <= 1024
	}
	text := [count(part) |
		some denial in all
		some name in ["code", "message", "field", "hint"]
		part := object.get(denial, name, "")
	]
	sum(text) <= 8192
	"JURISDICTION_UNKNOWN" in {denial.code | some denial in all}
}

test_places_of_ones_own_have_to_be_listed if {
	params := {"adequate": ["DE", "XK"]}
	residency.params_wrong(object.union(params, {"more_jurisdictions": ["XK"]})) == set()
	told := {"path": "adequate[1]", "message": "is XK, which is not in more_jurisdictions"}
	residency.params_wrong(object.union(params, {"more_jurisdictions": ["XA"]})) == {told}
	residency.params_wrong(params) == {told}
	residency.params_wrong({"adequate": ["QA", "DE"]}) == set()
}
