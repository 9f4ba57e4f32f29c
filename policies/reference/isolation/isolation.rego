# METADATA
# title: Isolation
# description: |
#   Keeps tenants, data and model weights apart. The levels are a chain, each including the ones
#   before it. A request must ask for at least what its class of tenant, its contract, its data and
#   its models need, and for what the cluster can provide. The provisioner is obliged to build what
#   was asked for, and to share hosts only among those who may see the data and the weights. A
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

# How the GPUs under evaluation can be cut, the preferred way first.
ways := [way |
	some pool in input.cluster.gpus
	pool.model == subject.gpu_model
	some way in pool.partition_modes
]

# How the provisioner builds a level.
mode := "time-slice" if level == "SHARED"

mode := {"MIG": "mig", "SRIOV": "sr-iov"}[ways[0]] if level == "PARTITIONED"

# Whole GPUs that cannot be cut are as far apart when each is handed over whole.
mode := "pci-passthrough" if {
	level == "PARTITIONED"
	count(ways) == 0
}

mode := "pci-passthrough" if level == "PASSTHROUGH"

mode := "whole-host" if level == "DEDICATED"

mode := "whole-host-attested" if level == "CONFIDENTIAL"

# A level as the params name it. One that names none must be an error, not a door left open:
# `to_number` refuses the text.
rank_of(name) := rank[name] if rank[name]

rank_of(name) := to_number("a param is no isolation level") if not rank[name]

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
# title: Below the least of its class of tenants
# description: |
#   Of own tenants and of customers each have a least level, whatever their contracts and their data
#   say.
# custom:
#   code: ISOLATION_BELOW_CLASS
#   controls: ["SOC2:CC6.1"]
deny contains {
	"code": "ISOLATION_BELOW_CLASS",
	"message": sprintf(
		"isolation level %s is below %s, the least for tenants of kind %s",
		[level, least, input.tenant.kind],
	),
	"field": field,
	"hint": sprintf("ask for %s or above", [least]),
} if {
	rank[level] < rank_of(least)
}

least := object.get(object.get(data.params, "least_level", {}), input.tenant.kind, "SHARED")

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
# title: A share of a GPU that cannot be cut
# description: |
#   At PARTITIONED a share of a GPU is a slice or a function of its own, and GPUs of this model have
#   none.
# custom:
#   code: PARTITION_NOT_OFFERED
#   controls: ["SOC2:CC6.1"]
deny contains {
	"code": "PARTITION_NOT_OFFERED",
	"message": sprintf(
		"GPUs of model %s in cluster %s cannot be cut into shares that are kept apart",
		[subject.gpu_model, input.cluster.id],
	),
	"field": sprintf("%s.gpu_milli", [kind]),
	"hint": "ask for whole GPUs (gpu_milli 1000) or for another GPU model",
} if {
	level == "PARTITIONED"
	subject.gpu_milli < 1000
	count(ways) == 0
}

# GPUs of a host of the model under evaluation.
per_host := [pool.gpus_per_host |
	some pool in input.cluster.gpus
	pool.model == subject.gpu_model
][0]

# METADATA
# title: Part of a host that is nobody else's
# description: |
#   From DEDICATED on hosts are had whole: what is left of one could be given to nobody. A job inside
#   a lease runs on the hosts of the lease.
# custom:
#   code: WHOLE_HOSTS_ONLY
#   controls: ["SOC2:CC6.1"]
deny contains {
	"code": "WHOLE_HOSTS_ONLY",
	"message": sprintf("%d GPUs are no whole hosts: model %s in cluster %s has %d a host", [
		subject.gpu_count, subject.gpu_model,
		input.cluster.id, per_host,
	]),
	"field": sprintf("%s.gpu_count", [kind]),
	"hint": sprintf("ask for %s", [whole(subject.gpu_count - left)]),
} if {
	rank[level] >= rank.DEDICATED
	not subject.lease_id
	left := subject.gpu_count % per_host
	left > 0
}

# The numbers of GPUs next to what was asked for, by the lower one.
whole(below) := sprintf("%d or %d GPUs", [below, below + per_host]) if below > 0

whole(below) := sprintf("%d GPUs", [per_host]) if below == 0

# METADATA
# title: Somebody else's data
# description: |
#   Confidential and restricted data is read by its owner alone, internal data also by those whom
#   the facts name.
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
	dataset.classification != "PUBLIC"
	not may_read(dataset)
}

may_read(dataset) if {
	dataset.classification == "INTERNAL"
	input.tenant.id in dataset.readers
}

# METADATA
# title: Build the level
# description: The provisioner provides the level by this mode, or refuses.
# custom:
#   obligation: isolation
#   controls: ["SOC2:CC6.1"]
obligations contains {"id": "isolation", "params": {"level": level, "mode": mode}}

# METADATA
# title: Attest the hosts
# description: |
#   At CONFIDENTIAL the hosts prove what they run before they get a key, and no longer ago than the
#   param says.
# custom:
#   obligation: host.attest
#   controls: ["SOC2:CC6.1", "ISO27001:A.8.24"]
obligations contains {
	"id": "host.attest",
	"params": {"max_age_seconds": sprintf("%d", [age])},
} if {
	age := number(object.get(data.params, "attestation_max_age_seconds", 3600))
	level == "CONFIDENTIAL"
}

# Other things than numbers are an error.
number(value) := value if is_number(value)

number(value) := to_number("a param is no number") if not is_number(value)

# METADATA
# title: Neighbours on a host
# description: |
#   Where hosts are shared, data and weights that are not public share them only with tenants that
#   may see all of them: ids joined by commas. Where they are too many to name, with nobody else.
# custom:
#   obligation: placement.co-residents
#   controls: ["SOC2:CC6.1", "ISO27001:A.5.12"]
obligations contains {"id": "placement.co-residents", "params": {"tenants": neighbours}} if {
	rank[level] < rank.DEDICATED
	count(circles) > 0
}

# Who may see each of them.
circles := [circle(one) |
	some one in array.concat(input.datasets, input.models)
	one.classification != "PUBLIC"
]

circle(one) := {one.owner} | {reader | some reader in one.readers}

together := concat(",", sort(intersection({those | some those in circles}) | {input.tenant.id}))

# As long as a param of an obligation may be.
most_bytes := 256

neighbours := together if count(together) <= most_bytes

neighbours := input.tenant.id if count(together) > most_bytes

# METADATA
# title: A network of its own
# description: |
#   From the level in the param on, the tenant's traffic runs in a partition of its own, of the kind
#   that the fabric has.
# custom:
#   obligation: network.partition
#   controls: ["ISO27001:A.8.22"]
obligations contains {
	"id": "network.partition",
	"params": {
		"kind": {"ETHERNET": "vxlan", "ROCE": "vlan", "INFINIBAND": "pkey"}[input.cluster.fabric_kind],
		"tenant": input.tenant.id,
	},
} if {
	rank[level] >= rank_of(object.get(data.params, "network_obligation_from", ""))
}
