# METADATA
# title: Isolation
# description: |
#   Keeps tenants, data and model weights apart. The levels are a chain, each including the ones
#   before it. A request must ask for at least what its contract, its data and its models need, and
#   for what the cluster can provide. The provisioner is obliged to build what was asked for. A
#   component in WebAssembly says the same: isolation.wasm.
# custom:
#   owner: platform-isolation
#   controls: ["SOC2:CC6.1", "ISO27001:A.5.12", "ISO27001:A.8.22"]
package placet.isolation

import rego.v1

subject := input.lease

subject := input.job

kind := "lease" if input.lease

kind := "job" if input.job

level := subject.isolation_level

# The lattice, from the least to the most.
levels := ["SHARED", "PARTITIONED", "PASSTHROUGH", "DEDICATED", "CONFIDENTIAL"]

rank := {"SHARED": 0, "PARTITIONED": 1, "PASSTHROUGH": 2, "DEDICATED": 3, "CONFIDENTIAL": 4}

# What a classification of data or weights needs.
need := {
	"PUBLIC": "SHARED",
	"INTERNAL": "PARTITIONED",
	"CONFIDENTIAL": "DEDICATED",
	"RESTRICTED": "CONFIDENTIAL",
}

# How the provisioner builds a level.
mode := {
	"SHARED": "time-slice",
	"PARTITIONED": "mig-or-sriov",
	"PASSTHROUGH": "pci-passthrough",
	"DEDICATED": "whole-host",
	"CONFIDENTIAL": "whole-host-attested",
}

field := sprintf("%s.isolation_level", [kind])

# METADATA
# title: The cluster does not offer the level
# description: What a cluster can provide is in the facts.
# custom:
#   code: ISOLATION_NOT_OFFERED
#   controls: ["SOC2:CC6.1"]
deny contains {
	"code": "ISOLATION_NOT_OFFERED",
	"message": sprintf("cluster %s does not offer isolation level %s", [input.cluster.id, level]),
	"field": field,
	"hint": sprintf("offered are %s", [concat(", ", offered)]),
} if {
	not level in input.cluster.isolation_levels
}

offered := [name | some name in levels; name in input.cluster.isolation_levels]

# METADATA
# title: Below the tenant's contract
# description: A contract may promise a least level for all of a tenant's work.
# custom:
#   code: ISOLATION_BELOW_CONTRACT
#   controls: ["SOC2:CC6.1"]
deny contains {
	"code": "ISOLATION_BELOW_CONTRACT",
	"message": sprintf(
		"isolation level %s is below %s, the least that the contract of tenant %s promises",
		[level, input.tenant.min_isolation, input.tenant.id],
	),
	"field": field,
	"hint": sprintf("ask for %s or above", [input.tenant.min_isolation]),
} if {
	rank[level] < rank[input.tenant.min_isolation]
}

# METADATA
# title: Below what the data needs
# description: |
#   Confidential data never shares hardware; restricted data only runs where the hardware attests
#   itself.
# custom:
#   code: ISOLATION_BELOW_DATA
#   controls: ["SOC2:CC6.1", "ISO27001:A.5.12"]
deny contains {
	"code": "ISOLATION_BELOW_DATA",
	"message": sprintf(
		"dataset %s is %s and needs isolation level %s or above",
		[dataset.id, dataset.classification, need[dataset.classification]],
	),
	"field": field,
	"hint": sprintf("ask for %s or above", [need[dataset.classification]]),
} if {
	some dataset in input.datasets
	rank[level] < rank[need[dataset.classification]]
}

# METADATA
# title: Below what the weights need
# description: Weights are guarded as data is.
# custom:
#   code: ISOLATION_BELOW_WEIGHTS
#   controls: ["SOC2:CC6.1", "ISO27001:A.5.12"]
deny contains {
	"code": "ISOLATION_BELOW_WEIGHTS",
	"message": sprintf(
		"weights of model %s are %s and need isolation level %s or above",
		[model.id, model.classification, need[model.classification]],
	),
	"field": field,
	"hint": sprintf("ask for %s or above", [need[model.classification]]),
} if {
	some model in input.models
	rank[level] < rank[need[model.classification]]
}

# METADATA
# title: A share of a GPU that nobody may share
# description: Above PARTITIONED a GPU belongs to one tenant, so a part of it cannot be had.
# custom:
#   code: SHARE_OF_GPU_NEEDS_SHARING
deny contains {
	"code": "SHARE_OF_GPU_NEEDS_SHARING",
	"message": sprintf("a share of a GPU cannot be had at isolation level %s", [level]),
	"field": sprintf("%s.gpu_milli", [kind]),
	"hint": "ask for whole GPUs (gpu_milli 1000) or for PARTITIONED or below",
} if {
	subject.gpu_milli < 1000
	rank[level] > rank.PARTITIONED
}

# METADATA
# title: Somebody else's guarded data
# description: Confidential and restricted data is read by its owner alone.
# custom:
#   code: DATASET_NOT_YOURS
#   controls: ["SOC2:CC6.1", "ISO27001:A.5.15"]
deny contains {
	"code": "DATASET_NOT_YOURS",
	"message": sprintf(
		"dataset %s belongs to %s and is %s",
		[dataset.id, dataset.owner, dataset.classification],
	),
	"field": sprintf("%s.dataset_ids", [kind]),
} if {
	some dataset in input.datasets
	dataset.owner != input.tenant.id
	dataset.classification in {"CONFIDENTIAL", "RESTRICTED"}
}

# METADATA
# title: Build the level
# description: The provisioner provides the level by this mode, or refuses.
# custom:
#   obligation: isolation
#   controls: ["SOC2:CC6.1"]
obligations contains {"id": "isolation", "params": {"level": level, "mode": mode[level]}}

# METADATA
# title: A network of its own
# description: From the level in the param on, the tenant's traffic runs in a partition of its own.
# custom:
#   obligation: network.partition
#   controls: ["ISO27001:A.8.22"]
obligations contains {"id": "network.partition", "params": {"tenant": input.tenant.id}} if {
	rank[level] >= network_from
}

network_from := rank[data.params.network_obligation_from]

# A param that is absent or names no level must be an error, not a network left open: `to_number`
# refuses the text.
network_from := to_number("network_obligation_from is no isolation level") if {
	not rank[data.params.network_obligation_from]
}
