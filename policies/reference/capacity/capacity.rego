# METADATA
# title: Capacity of the cluster
# description: |
#   Own work may fill a cluster; sold work stays out of its safety buffer, so that a burst of own
#   work finds room. Claims the GPUs of the model under evaluation and the fabric bandwidth, with
#   the share of the class as limit: the ledger refuses what does not fit beside others. What could
#   not fit into an empty cluster is refused here, with the largest amount that could.
# custom:
#   owner: platform-capacity
#   controls: ["SOC2:A1.1", "ISO27001:A.8.6"]
package placet.capacity

import rego.v1

params := data.params

subject := input.lease

subject := input.job

kind := "lease" if input.lease

kind := "job" if input.job

# Any other class than the owner's counts as external, the stricter side.
internal if input.priority_class == "INTERNAL_RESEARCH"

# Not an iteration in the rules below: the facts name each model at most once in a cluster.
pool := [p | some p in input.cluster.gpus; p.model == subject.gpu_model][0]

# Milli-GPUs that this class could have if the cluster were empty.
reach := pool.count * 1000 if internal

reach := (pool.count - pool.safety_buffer) * 1000 if not internal

# Gbit/s that this class could have if the fabric were idle.
fabric_reach := input.cluster.fabric_gbps if internal

fabric_reach := divided(input.cluster.fabric_gbps * external_fabric_percent, 100) if not internal

external_fabric_percent := min([100, to_number(object.get(params, "external_fabric_percent", 100))])

# Rounded down, in integers: `/` alone could leave a fraction.
divided(a, b) := (a - (a % b)) / b

share := "own work" if internal

share := "external work" if not internal

# METADATA
# title: The cluster has no such GPU
# description: |
#   The facts list no GPU of the model in this cluster. The engine refuses such a request before it
#   asks policies; without the rule this policy would claim nothing and permit.
# custom:
#   code: GPU_MODEL_NOT_IN_CLUSTER
deny contains {
	"code": "GPU_MODEL_NOT_IN_CLUSTER",
	"message": sprintf("cluster %s has no GPU of model %s", [input.cluster.id, subject.gpu_model]),
	"field": sprintf("%s.gpu_models", [kind]),
	"hint": models_hint,
} if {
	not pool
}

models_hint := sprintf("it has %s", [concat(", ", array.slice(cluster_models, 0, 16))]) if {
	count(cluster_models) > 0
}

models_hint := "ask in another cluster" if count(cluster_models) == 0

cluster_models := sort([p.model | some p in input.cluster.gpus])

# METADATA
# title: More GPUs than the class could ever have here
# description: Own work reaches up to all GPUs of the model; external work up to the safety buffer.
# custom:
#   code: RESOURCE_UNAVAILABLE
#   controls: ["SOC2:A1.1"]
deny contains {
	"code": "RESOURCE_UNAVAILABLE",
	"message": sprintf(
		"%s of model %s exceed the %d that cluster %s has for %s",
		[asked, subject.gpu_model, largest_count, input.cluster.id, share],
	),
	"field": sprintf("%s.gpu_count", [kind]),
	"hint": gpu_hint,
} if {
	subject.milli_gpus > reach
}

asked := sprintf("%d GPUs", [subject.gpu_count]) if subject.gpu_milli == 1000

asked := sprintf("%d shares of %d/1000 of a GPU", [subject.gpu_count, subject.gpu_milli]) if {
	subject.gpu_milli != 1000
}

# GPUs, or shares of this size, that the class could have if the cluster were empty.
largest_count := divided(reach, subject.gpu_milli)

gpu_hint := sprintf("ask for a gpu_count of at most %d", [largest_count]) if largest_count > 0

gpu_hint := "ask for another model or in another cluster" if largest_count <= 0

# METADATA
# title: More bandwidth than the class could ever have here
# description: |
#   External work may fill only a share of the fabric, so that collectives of own work are not
#   starved.
# custom:
#   code: RESOURCE_UNAVAILABLE
#   controls: ["SOC2:A1.1"]
deny contains {
	"code": "RESOURCE_UNAVAILABLE",
	"message": sprintf(
		"%d Gbit/s exceed the %d Gbit/s of fabric that cluster %s has for %s",
		[subject.fabric_gbps, fabric_reach, input.cluster.id, share],
	),
	"field": sprintf("%s.fabric_gbps", [kind]),
	"hint": sprintf("ask for at most %d Gbit/s", [fabric_reach]),
} if {
	subject.fabric_gbps > fabric_reach
}

# METADATA
# title: GPUs of the cluster
# description: |
#   Thousandths of a GPU of the model under evaluation. A job inside a lease takes none of the
#   cluster: the lease holds them.
# custom:
#   controls: ["SOC2:A1.1", "ISO27001:A.8.6"]
claims contains {
	"account": sprintf("cluster/%s/gpu/%s", [input.cluster.id, subject.gpu_model]),
	"amount": subject.milli_gpus,
	"limit": reach,
	"code": "RESOURCE_UNAVAILABLE",
} if {
	not subject.lease_id
}

# METADATA
# title: GPUs of the lease
# description: What jobs inside a lease hold together is at most what the lease holds.
# custom:
#   controls: ["SOC2:A1.1", "ISO27001:A.8.6"]
claims contains {
	"account": sprintf("lease/%s", [subject.lease_id]),
	"amount": subject.milli_gpus,
	"code": "RESOURCE_UNAVAILABLE",
} if {
	subject.lease_id
}

# METADATA
# title: Fabric of the cluster
# description: Gbit/s over all GPUs of the request together.
# custom:
#   controls: ["SOC2:A1.1"]
claims contains {
	"account": sprintf("cluster/%s/fabric-gbps", [input.cluster.id]),
	"amount": subject.fabric_gbps,
	"limit": fabric_reach,
	"code": "RESOURCE_UNAVAILABLE",
} if {
	subject.fabric_gbps > 0
	not subject.lease_id
}

# METADATA
# title: Fabric of the lease
# description: Gbit/s of what the lease holds.
# custom:
#   controls: ["SOC2:A1.1"]
claims contains {
	"account": sprintf("lease/%s/fabric-gbps", [subject.lease_id]),
	"amount": subject.fabric_gbps,
	"code": "RESOURCE_UNAVAILABLE",
} if {
	subject.fabric_gbps > 0
	subject.lease_id
}
