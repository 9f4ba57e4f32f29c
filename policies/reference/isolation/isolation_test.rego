# Run by `placet test`, and by `opa test` with a file that gives `data.params`.
package placet.isolation_test

import rego.v1

import data.placet.isolation

cluster := {
	"id": "fra-1",
	"fabric_kind": "ROCE",
	"gpus": [{"gpus_per_host": 8, "model": "H100", "partition_modes": ["MIG", "SRIOV"]}],
	"isolation_levels": ["SHARED", "PARTITIONED", "DEDICATED"],
}

tenant := {"id": "acme", "kind": "CUSTOMER", "min_isolation": "SHARED"}

# A lease at a level, on the cluster above.
lease_at(level) := {
	"cluster": cluster,
	"tenant": tenant,
	"lease": {"gpu_count": 8, "gpu_milli": 1000, "gpu_model": "H100", "isolation_level": level},
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
		"gpu_count": 8,
		"gpu_milli": 1000,
		"gpu_model": "H100",
	}})
	some denial in isolation.deny with input as job
	denial.field == "job.isolation_level"
}

test_the_contract_is_kept if {
	input_with_contract := object.union(
		lease_at("SHARED"),
		{"tenant": {"min_isolation": "DEDICATED"}},
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

params_of(id) := [obligation.params | some obligation in isolation.obligations; obligation.id == id]

test_the_network_is_cut_as_its_fabric_can_be if {
	every fabric, kind in {"ETHERNET": "vxlan", "ROCE": "vlan", "INFINIBAND": "pkey"} {
		found := params_of("network.partition") with input as lease_at("PARTITIONED")
			with input.cluster.fabric_kind as fabric
		found == [{"kind": kind, "tenant": "acme"}]
	}
}

test_gpus_are_cut_in_the_preferred_way if {
	every modes, mode in {"[SRIOV]": "sr-iov", "[MIG]": "mig", "[SRIOV,MIG]": "sr-iov", "[]": "pci-passthrough"} {
		listed := [way | some way in split(trim(modes, "[]"), ","); way != ""]
		found := params_of("isolation") with input as lease_at("PARTITIONED")
			with input.cluster.gpus as [{"gpus_per_host": 8, "model": "H100", "partition_modes": listed}]
		found == [{"level": "PARTITIONED", "mode": mode}]
	}
}

test_shares_are_cut_where_there_is_a_way if {
	codes == set() with input as lease_at("PARTITIONED") with input.lease.gpu_milli as 500
	codes == {"PARTITION_NOT_OFFERED"} with input as lease_at("PARTITIONED")
		with input.lease.gpu_milli as 500
		with input.lease.gpu_model as "MI300X"
}

hints := [denial.hint | some denial in isolation.deny; denial.code == "WHOLE_HOSTS_ONLY"]

test_hosts_are_had_whole if {
	every count_of, hint in {"1": "8 GPUs", "7": "8 GPUs", "9": "8 or 16 GPUs", "17": "16 or 24 GPUs"} {
		hints == [sprintf("ask for %s", [hint])] with input as lease_at("DEDICATED")
			with input.lease.gpu_count as to_number(count_of)
	}
	hints == [] with input as lease_at("DEDICATED") with input.lease.gpu_count as 16
	hints == [] with input as lease_at("PASSTHROUGH") with input.lease.gpu_count as 9
	hints == [] with input as lease_at("DEDICATED")
		with input.lease.gpu_count as 9
		with input.lease.lease_id as "rsv-1"
}

internal(id, readers) := {
	"id": id,
	"owner": "lab",
	"classification": "INTERNAL",
	"readers": readers,
}

neighbours := params_of("placement.co-residents")

test_neighbours_are_those_who_may_see_everything if {
	shared := lease_at("PARTITIONED")
	neighbours == [] with input as shared
	neighbours == [{"tenants": "acme,lab,mill"}] with input as shared
		with input.datasets as [internal("d", ["acme", "mill"])]
	neighbours == [{"tenants": "acme,lab"}] with input as shared
		with input.datasets as [internal("d", ["acme", "mill"])]
		with input.models as [internal("m", ["acme"])]
	neighbours == [] with input as lease_at("DEDICATED")
		with input.datasets as [internal("d", ["acme"])]
}

test_neighbours_that_are_too_many_to_name_are_nobody if {
	tail := concat("", ["a" | some _ in numbers.range(1, 98)])
	long := [sprintf("t%d%s", [n, tail]) | some n in numbers.range(1, 3)]
	neighbours == [{"tenants": "acme"}] with input as lease_at("PARTITIONED")
		with input.datasets as [internal("d", long)]
	both := array.slice(long, 0, 2)
	text := concat(",", array.concat(["acme", "lab"], both))
	neighbours == [{"tenants": text}] with input as lease_at("PARTITIONED")
		with input.datasets as [internal("d", both)]
}

test_internal_data_is_read_by_those_who_are_named if {
	codes == set() with input as lease_at("PARTITIONED")
		with input.datasets as [internal("d", ["acme"])]
	codes == {"DATASET_NOT_YOURS"} with input as lease_at("PARTITIONED")
		with input.datasets as [internal("d", ["acne"])]
}

test_confidential_data_has_no_readers if {
	guarded := object.union(internal("d", ["acme"]), {"classification": "CONFIDENTIAL"})
	codes == {"DATASET_NOT_YOURS"} with input as lease_at("DEDICATED") with input.datasets as [guarded]
}

test_a_class_of_tenants_has_a_least_level if {
	codes == {"ISOLATION_BELOW_CLASS"} with input as lease_at("SHARED")
		with data.params.least_level as {"CUSTOMER": "PARTITIONED"}
	codes == set() with input as lease_at("SHARED") with data.params.least_level as {"OWN": "PARTITIONED"}
}

# Waits for a level between PARTITIONED and PASSTHROUGH.
todo_test_half_a_host if {
	count(isolation.deny) == 0 with input as lease_at("HALF_HOST")
}
