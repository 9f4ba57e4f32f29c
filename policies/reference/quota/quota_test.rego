# Params that are absent, or that no schema would let pass, and the words of denials. Run by
# `placet test`.
package placet.quota_test

import rego.v1

import data.placet.quota

base := {"max_duration_seconds": {"EXTERNAL_COMMERCIAL": 100}}

# A sold lease of eight GPUs that starts at once, with fields laid over it.
lease(over) := {
	"time": 1000,
	"month": "1970-01",
	"priority_class": "EXTERNAL_COMMERCIAL",
	"tenant": {"id": "acme"},
	"lease": object.union(
		{
			"duration_seconds": 100,
			"egress_bytes": 0,
			"gpu_count": 8,
			"gpu_milli": 1000,
			"milli_gpus": 8000,
			"gpu_seconds": 800,
			"start": 1000,
			"storage_io_bytes": 0,
		},
		over,
	),
}

refuses(codes) if codes == {denial.code | some denial in quota.deny}

hints := {denial.hint | some denial in quota.deny}

test_what_is_left_out_bounds_nothing_but_the_duration if {
	refuses(set()) with input as lease({"start": 30000000, "milli_gpus": 1000000000})
		with data.params as base
	refuses({"DURATION_ABOVE_MAXIMUM"}) with input as lease({}) with data.params as {}
	extends := {"reservation_id": "r", "start": 1, "end": 1000}
	refuses(set()) with input as lease({"extends": extends}) with data.params as base
}

test_a_maximum_of_a_second_is_one_and_none_has_no_hint if {
	told := {object.get(denial, "hint", "none") | some denial in quota.deny} with input as lease({})
		with data.params as {"max_duration_seconds": {"EXTERNAL_COMMERCIAL": 1}}
	told == {"ask for at most 1 s and again at their end"}
	none := {object.get(denial, "hint", "none") | some denial in quota.deny} with input as lease({})
		with data.params as {}
	none == {"none"}
}

test_a_class_that_is_not_listed_gets_nothing if {
	every name in ["max_duration_seconds", "max_gpus"] {
		refused := {denial.code | some denial in quota.deny} with input as lease({})
			with data.params as object.union(base, {name: {"INTERNAL_RESEARCH": 10000}})
		refused - {"DURATION_ABOVE_MAXIMUM"} == {"GPUS_ABOVE_MAXIMUM" | name == "max_gpus"}
	}
	refuses({"LEAD_ABOVE_MAXIMUM"}) with input as lease({"start": 1001})
		with data.params as object.union(base, {"max_lead_seconds": {}})
	extends := {"reservation_id": "r", "start": 999, "end": 1000}
	refuses({"EXTENDED_ABOVE_MAXIMUM"}) with input as lease({"extends": extends})
		with data.params as object.union(base, {"max_extended_seconds": {}})
}

test_without_a_lead_one_may_still_begin_at_once if {
	refuses(set()) with input as lease({})
		with data.params as object.union(base, {"max_lead_seconds": {}})
}

test_a_denial_of_the_lead_may_be_tried_again if {
	retries := {denial.retry | some denial in quota.deny} with input as lease({"start": 1101})
		with data.params as object.union(base, {"max_lead_seconds": {"EXTERNAL_COMMERCIAL": 100}})
	retries == {true}
}

test_hints_tell_what_would_pass if {
	hints == {"ask for at most 100 s and again at their end"} with input as lease({
		"duration_seconds": 101,
		"gpu_seconds": 808,
	})
		with data.params as base
	lead := object.union(base, {"max_lead_seconds": {"EXTERNAL_COMMERCIAL": 100}})
	told := "ask at 1970-01-01T00:16:41Z or later, or for a start of at most 1970-01-01T00:18:20Z"
	hints == {told} with input as lease({"start": 1101}) with data.params as lead
	extends := {"reservation_id": "r", "start": 950, "end": 1000}
	most := object.union(base, {"max_extended_seconds": {"EXTERNAL_COMMERCIAL": 120}})
	hints == {"ask for at most 70 s more"} with input as lease({"extends": extends})
		with data.params as most
	old := {"reservation_id": "r", "start": 880, "end": 1000}
	hints == {"ask for a new lease or job"} with input as lease({"extends": old})
		with data.params as most
}

test_who_is_not_listed_is_not_counted if {
	accounts := {claim.account | some claim in quota.claims} with input as lease({})
		with data.params as object.union(base, {"max_concurrent": {"other": 1}})
	accounts == {"tenant/acme/gpu", "tenant/acme/gpu-seconds/1970-01"}
}

test_a_limit_that_is_no_number_is_still_a_limit if {
	every value in [false, 0, "8"] {
		limits := {claim.limit | some claim in quota.claims} with input as lease({})
			with data.params as object.union(base, {"max_concurrent": {"acme": value}})
		value in limits
	}
}

test_extended_time_below_that_of_one_request_is_wrong if {
	params := {
		"max_duration_seconds": {"EXTERNAL_COMMERCIAL": 100, "INTERNAL_RESEARCH": 100},
		"max_extended_seconds": {"EXTERNAL_COMMERCIAL": 99, "INTERNAL_RESEARCH": 100},
	}
	quota.params_wrong(params) == {{
		"path": "max_extended_seconds.EXTERNAL_COMMERCIAL",
		"message": "is 99, below max_duration_seconds of the class, 100",
	}}
	quota.params_wrong({"max_duration_seconds": {"EXTERNAL_COMMERCIAL": 100}}) == set()
	quota.params_wrong({"max_extended_seconds": {"EXTERNAL_COMMERCIAL": 1}}) == set()
}
