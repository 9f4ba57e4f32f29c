# The names of congestion profiles, rounding, the words of denials, and params that are absent or
# wrong. Run by `placet test`.
package placet.capacity_test

import rego.v1

import data.placet.capacity

base := {"external_fabric_percent": 80}

# A lease of so many GPUs at noon for an hour, with fields laid over it.
lease(class, gpus, over) := {
	"priority_class": class,
	"cluster": {
		"id": "fra",
		"fabric_gbps": 1000,
		"gpus": [{"model": "H100", "count": 9, "safety_buffer": 2}],
	},
	"lease": object.union(
		{
			"gpu_model": "H100",
			"gpu_count": gpus,
			"gpu_milli": 1000,
			"milli_gpus": gpus * 1000,
			"fabric_gbps": 0,
			"duration_seconds": 3600,
			"start": 43200,
		},
		over,
	),
}

sold(gpus, over) := lease("EXTERNAL_COMMERCIAL", gpus, over)

own(gpus, over) := lease("INTERNAL_RESEARCH", gpus, over)

codes := {denial.code | some denial in capacity.deny}

hints := {denial.hint | some denial in capacity.deny}

profiles := {obligation.params.profile | some obligation in capacity.obligations}

gpu_limit := [claim.limit |
	some claim in capacity.claims
	claim.account == "cluster/fra/gpu/H100"
][0]

test_a_model_that_the_cluster_lacks_is_refused_here_too if {
	codes == {"GPU_MODEL_NOT_IN_CLUSTER"} with input as sold(1, {"gpu_model": "A100"})
		with data.params as base
	hints == {"it has H100"} with input as sold(1, {"gpu_model": "A100"}) with data.params as base
	empty := object.union(sold(1, {}), {"cluster": {"id": "fra", "fabric_gbps": 1000, "gpus": []}})
	hints == {"ask in another cluster"} with input as empty with data.params as base
}

busy(hours) := object.union(base, {"busy_hours": [hours]})

noon := {"from_hour": 12, "until_hour": 13, "buffer_percent": 50}

test_a_share_of_the_gpus_is_rounded_up if {
	limit := gpu_limit with input as sold(1, {}) with data.params as busy(noon)
	limit == 4000
}

test_hours_do_not_make_the_buffer_smaller if {
	little := object.union(noon, {"buffer_percent": 1})
	limit := gpu_limit with input as sold(1, {}) with data.params as busy(little)
	limit == 7000
}

test_of_two_entries_the_larger_buffer_counts if {
	twice := {"busy_hours": [noon, object.union(noon, {"buffer_percent": 100})]}
	limit := gpu_limit with input as sold(1, {}) with data.params as object.union(base, twice)
	limit == 0
}

test_an_empty_list_of_clusters_is_no_cluster if {
	nowhere := object.union(noon, {"clusters": []})
	limit := gpu_limit with input as sold(1, {}) with data.params as busy(nowhere)
	limit == 7000
}

test_a_denial_names_the_busy_hours if {
	hints == {"ask for a gpu_count of at most 4, or outside of 12:00 to 13:00 UTC"}
		with input as sold(5, {})
		with data.params as busy(noon)
	all := object.union(noon, {"buffer_percent": 100})
	told := "ask for another model or in another cluster, or outside of 12:00 to 13:00 UTC"
	hints == {told} with input as sold(5, {}) with data.params as busy(all)
}

profiled := object.union(base, {"congestion_profiles": [
	{"from_gbps": 100, "profile": "many"},
	{"from_gbps": 1, "profile": "few"},
]})

test_the_highest_threshold_that_is_reached_names_the_profile if {
	every pair in [[0, set()], [1, {"few"}], [99, {"few"}], [100, {"many"}], [800, {"many"}]] {
		found := profiles with input as sold(1, {"fabric_gbps": pair[0]})
			with data.params as profiled
		found == pair[1]
	}
}

collectives := object.union(profiled, {"collectives": {"from_gpus": 4, "gbps_per_gpu": 150}})

test_a_large_collective_is_paced_by_what_it_claims if {
	profiles == {"many"} with input as sold(4, {}) with data.params as collectives
	profiles == set() with input as sold(3, {}) with data.params as collectives
}

test_a_collective_that_is_too_large_is_told_the_largest if {
	codes == {"FABRIC_TOO_SMALL"} with input as sold(6, {}) with data.params as collectives
	hints == {"ask for a gpu_count of at most 5"} with input as sold(6, {})
		with data.params as collectives
	huge := object.union(base, {"collectives": {"from_gpus": 4, "gbps_per_gpu": 900}})
	hints == {"ask for a gpu_count of at most 3"} with input as sold(6, {}) with data.params as huge
}

test_collectives_may_fill_the_fabric if {
	four := object.union(base, {"collectives": {"from_gpus": 4, "gbps_per_gpu": 200}})
	codes == set() with input as sold(4, {}) with data.params as four
	codes == {"FABRIC_TOO_SMALL"} with input as sold(5, {}) with data.params as four
}

test_inside_a_lease_one_gbps_is_claimed_of_it if {
	inside := sold(1, {"lease_id": "r", "fabric_gbps": 1})
	accounts := {claim.account | some claim in capacity.claims} with input as inside
		with data.params as base
	accounts == {"lease/r", "lease/r/fabric-gbps"}
	calm := object.union(inside, {"lease": {"fabric_gbps": 0}})
	only := {claim.account | some claim in capacity.claims} with input as calm
		with data.params as base
	only == {"lease/r"}
}

test_where_one_gpu_could_be_had_it_is_said if {
	nearly := object.union(noon, {"buffer_percent": 88})
	hints == {"ask for a gpu_count of at most 1, or outside of 12:00 to 13:00 UTC"}
		with input as sold(2, {})
		with data.params as busy(nearly)
}

test_hours_that_are_not_in_the_way_are_not_told if {
	hints == {"ask for a gpu_count of at most 4"} with input as sold(8, {})
		with data.params as busy(noon)
	hints == {"ask for a gpu_count of at most 9"} with input as own(10, {})
		with data.params as busy(noon)
}

test_hours_are_told_up_to_what_would_fit_outside_of_them if {
	hints == {"ask for a gpu_count of at most 4, or outside of 12:00 to 13:00 UTC"}
		with input as sold(7, {})
		with data.params as busy(noon)
	told := "7 GPUs of model H100 exceed the 4 that cluster fra has for external work at busy hours"
	{denial.message | some denial in capacity.deny} == {told} with input as sold(7, {})
		with data.params as busy(noon)
	plain := "10 GPUs of model H100 exceed the 9 that cluster fra has for own work"
	{denial.message | some denial in capacity.deny} == {plain} with input as own(10, {})
		with data.params as busy(noon)
}

test_hours_that_change_nothing_are_not_told if {
	same := object.union(noon, {"buffer_percent": 22})
	hints == {"ask for a gpu_count of at most 7"} with input as sold(8, {})
		with data.params as busy(same)
}

test_without_a_share_of_the_fabric_none_is_sold if {
	none := {"external_fabric_percent": 0}
	codes == {"RESOURCE_UNAVAILABLE"} with input as sold(1, {"fabric_gbps": 1})
		with data.params as none
	codes == set() with input as own(1, {"fabric_gbps": 1}) with data.params as none
}

test_a_share_above_the_whole_gives_no_more_than_it if {
	codes == {"RESOURCE_UNAVAILABLE"} with input as sold(1, {"fabric_gbps": 1001})
		with data.params as {"external_fabric_percent": 200}
}

test_a_buffer_above_capacity_sells_nothing if {
	over := object.union(noon, {"buffer_percent": 101})
	codes == {"RESOURCE_UNAVAILABLE"} with input as sold(1, {}) with data.params as busy(over)
	limit := gpu_limit with input as sold(1, {}) with data.params as busy(over)
	limit == 0
}

wrong_params(params) := {wrong.path | some wrong in capacity.params_wrong(params)}

hours_of(from, until) := {"busy_hours": [
	{"from_hour": 1, "until_hour": 2, "buffer_percent": 1},
	{"from_hour": from, "until_hour": until, "buffer_percent": 1},
]}

test_hours_that_end_when_they_begin_are_wrong if {
	wrong_params(hours_of(7, 7)) == {"busy_hours[1].until_hour"}
	wrong_params(hours_of(0, 24)) == set()
	wrong_params(hours_of(23, 24)) == set()
	wrong_params(hours_of(7, 6)) == set()
	wrong_params({}) == set()
}

test_two_profiles_of_one_threshold_are_wrong if {
	profiles := [
		{"from_gbps": 1, "profile": "a"},
		{"from_gbps": 2, "profile": "b"},
		{"from_gbps": 1, "profile": "c"},
	]
	wrong_params({"congestion_profiles": profiles}) == {"congestion_profiles[2].from_gbps"}
	wrong_params({"congestion_profiles": array.slice(profiles, 0, 2)}) == set()
}
