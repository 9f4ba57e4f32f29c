# The levels of isolation are a chain, and what is needed goes up it with the classification. Run by
# `placet test`.
package placet.lattice_test

import rego.v1

import data.placet.isolation

levels := ["SHARED", "PARTITIONED", "PASSTHROUGH", "DEDICATED", "CONFIDENTIAL"]

# The least level of each class, by its place in the chain.
least := {"PUBLIC": 0, "INTERNAL": 1, "CONFIDENTIAL": 3, "RESTRICTED": 4}

# The tenant's own data and weights of a class at a level, in a cluster that offers all of them.
owned(classification, level) := {
	"cluster": {
		"fabric_kind": "INFINIBAND",
		"gpus": [{"gpus_per_host": 8, "model": "H100", "partition_modes": ["MIG"]}],
		"id": "fra",
		"isolation_levels": levels,
	},
	"tenant": {"id": "acme", "kind": "CUSTOMER", "min_isolation": "SHARED"},
	"lease": {"gpu_count": 8, "gpu_milli": 1000, "gpu_model": "H100", "isolation_level": level},
	"datasets": [{"classification": classification, "id": "d", "owner": "acme", "readers": []}],
	"models": [{"classification": classification, "id": "m", "owner": "acme", "readers": []}],
}

codes := {denial.code | some denial in isolation.deny}

ids := {obligation.id | some obligation in isolation.obligations}

test_the_chain_is_that_of_the_policy if {
	isolation.levels == levels
	every at, level in levels {
		isolation.rank[level] == at
	}
	count(isolation.rank) == count(levels)
}

test_a_class_needs_its_level_and_every_one_above if {
	every classification, from in least {
		every at, level in levels {
			found := codes with input as owned(classification, level)
			found == {code |
				at < from
				some code in ["ISOLATION_BELOW_DATA", "ISOLATION_BELOW_WEIGHTS"]
			}
		}
	}
}

test_a_contract_needs_its_level_and_every_one_above if {
	every from, promised in levels {
		every at, level in levels {
			asked := object.union(
				owned("PUBLIC", level),
				{"tenant": {"min_isolation": promised}},
			)
			found := codes with input as asked
			found == {code | at < from; code := "ISOLATION_BELOW_CONTRACT"}
		}
	}
}

test_a_kind_of_tenant_needs_its_level_and_every_one_above if {
	every from, param in levels {
		every at, level in levels {
			found := codes with input as owned("PUBLIC", level)
				with data.params.least_level as {"CUSTOMER": param}
			found == {code | at < from; code := "ISOLATION_BELOW_CLASS"}
		}
	}
}

test_the_network_is_apart_from_its_level_and_every_one_above if {
	every from, param in levels {
		every at, level in levels {
			found := ids with input as owned("PUBLIC", level)
				with data.params.network_obligation_from as param
			found - {"host.attest", "isolation"} == {id | at >= from; id := "network.partition"}
		}
	}
}

test_a_share_needs_a_level_at_which_gpus_are_shared if {
	every at, level in levels {
		asked := object.union(owned("PUBLIC", level), {"lease": {"gpu_milli": 999}})
		found := codes with input as asked
		found == {code | at > 1; code := "SHARE_OF_GPU_NEEDS_SHARING"}
	}
}

test_every_level_is_built_in_a_way_of_its_own if {
	modes := {mode |
		some level in levels
		mode := isolation.mode with input as owned("PUBLIC", level)
	}
	count(modes) == count(levels)
}
