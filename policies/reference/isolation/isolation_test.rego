# Run by `placet test`, and by `opa test` with a file that gives `data.params`.
package placet.isolation_test

import rego.v1

import data.placet.isolation

cluster := {"id": "fra-1", "isolation_levels": ["SHARED", "PARTITIONED", "DEDICATED"]}

tenant := {"id": "acme", "min_isolation": "SHARED"}

# A lease at a level, on the cluster above.
lease_at(level) := {
	"cluster": cluster,
	"tenant": tenant,
	"lease": {"isolation_level": level, "gpu_milli": 1000},
	"datasets": [],
	"models": [],
}

codes contains denial.code if some denial in isolation.deny

ids contains obligation.id if some obligation in isolation.obligations

test_a_level_that_is_offered_is_not_denied if {
	count(isolation.deny) == 0 with input as lease_at("DEDICATED")
}

test_a_level_that_is_not_offered_is_denied if {
	codes == {"ISOLATION_NOT_OFFERED"} with input as lease_at("CONFIDENTIAL")
}

test_a_job_is_held_to_the_same if {
	job := object.union(object.remove(lease_at("SHARED"), ["lease"]), {"job": {
		"isolation_level": "PASSTHROUGH",
		"gpu_milli": 1000,
	}})
	some denial in isolation.deny with input as job
	denial.field == "job.isolation_level"
}

test_the_contract_is_kept if {
	input_with_contract := object.union(
		lease_at("SHARED"),
		{"tenant": {"id": "acme", "min_isolation": "DEDICATED"}},
	)
	codes == {"ISOLATION_BELOW_CONTRACT"} with input as input_with_contract
}

test_restricted_data_of_another_is_denied_twice if {
	dataset := {"id": "d", "owner": "other", "classification": "RESTRICTED"}
	found := codes with input as object.union(lease_at("DEDICATED"), {"datasets": [dataset]})
	found == {"DATASET_NOT_YOURS", "ISOLATION_BELOW_DATA"}
}

test_a_share_needs_sharing if {
	codes == {"SHARE_OF_GPU_NEEDS_SHARING"} with input as lease_at("DEDICATED")
		with input.lease.gpu_milli as 500
}

test_the_network_is_apart_from_the_level_in_the_params if {
	ids == {"isolation"} with input as lease_at("SHARED")
	ids == {"isolation", "network.partition"} with input as lease_at("PARTITIONED")
	ids == {"isolation"} with input as lease_at("PARTITIONED")
		with data.params.network_obligation_from as "DEDICATED"
}

# Waits for a level between PARTITIONED and PASSTHROUGH.
todo_test_half_a_host if {
	count(isolation.deny) == 0 with input as lease_at("HALF_HOST")
}
