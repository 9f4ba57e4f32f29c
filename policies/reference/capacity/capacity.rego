# METADATA
# title: Capacity of the cluster
# description: |
#   Own work may fill a cluster; sold work stays out of its safety buffer, so that a burst of own
#   work finds room; at busy hours the buffer may be larger. Claims the GPUs of the model under
#   evaluation and the fabric bandwidth, of large collectives at least what they need, with the
#   share of the class as limit: the ledger refuses what does not fit beside others. What could not
#   fit into an empty cluster is refused here, with the largest amount that could.
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

reach := (pool.count - buffer) * 1000 if not internal

# --- busy hours

seconds_per_hour := 3600

seconds_per_day := 86400

# The hours at which sold work is kept out of more than the facts say, as far as they touch the
# work: what is held over an interval is held at its busiest hour.
busy := [hours |
	not internal
	some hours in object.get(params, "busy_hours", [])
	concerns(hours, "clusters", input.cluster.id)
	concerns(hours, "gpu_models", subject.gpu_model)
	touched(hours)
]

# A list that is absent names everything.
concerns(hours, list, id) if not hours[list]

concerns(hours, list, id) if id in hours[list]

from(hours) := hours.from_hour * seconds_per_hour

# Hours that do not end after they begin go on after midnight.
until(hours) := hours.until_hour * seconds_per_hour if hours.until_hour > hours.from_hour

until(hours) := (hours.until_hour + 24) * seconds_per_hour if {
	hours.until_hour <= hours.from_hour
}

touched(hours) if subject.duration_seconds >= seconds_per_day

# Less than a day meets the hours of the day before, of the same day or of the next one.
touched(hours) if {
	first := subject.start % seconds_per_day
	some day in [0 - seconds_per_day, 0, seconds_per_day]
	first < until(hours) + day
	from(hours) + day < first + subject.duration_seconds
}

# GPUs that sold work may not touch. The facts are the least; a share of the pool is rounded up.
buffer := max(array.concat([pool.safety_buffer], [gpus |
	some hours in busy
	left := max([0, divided(pool.count * (100 - hours.buffer_percent), 100)])
	gpus := pool.count - left
]))

# --- fabric

# Gbit/s that this class could have if the fabric were idle.
fabric_reach := input.cluster.fabric_gbps if internal

fabric_reach := divided(input.cluster.fabric_gbps * external_fabric_percent, 100) if not internal

external_fabric_percent := min([100, to_number(object.get(params, "external_fabric_percent", 100))])

# Rounded down, in integers: `/` alone could leave a fraction.
divided(a, b) := (a - (a % b)) / b

# Gbit/s to claim: what is asked for, and for large collectives at least what they need.
fabric := max([subject.fabric_gbps, collective_gbps])

collectives := object.get(params, "collectives", null)

# Inside a lease there is the bandwidth that the lease was granted.
large if {
	collectives != null
	not subject.lease_id
	subject.gpu_count >= collectives.from_gpus
}

collective_gbps := subject.gpu_count * collectives.gbps_per_gpu if large

collective_gbps := 0 if not large

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
	"hint": models_hint(input.cluster.gpus),
} if {
	not pool
}

models_hint(pools) := "ask in another cluster" if count(pools) == 0

models_hint(pools) := sprintf("it has %s", [concat(", ", array.slice(models, 0, 16))]) if {
	count(pools) > 0
	models := sort([p.model | some p in pools])
}

# METADATA
# title: More GPUs than the class could ever have here
# description: Own work reaches up to all GPUs of the model; external work up to the safety buffer.
# custom:
#   code: RESOURCE_UNAVAILABLE
#   controls: ["SOC2:A1.1"]
deny contains {
	"code": "RESOURCE_UNAVAILABLE",
	"message": sprintf(
		"%s of model %s exceed the %d that cluster %s has for %s%s",
		[
			asked(subject.gpu_milli), subject.gpu_model, most,
			input.cluster.id, share, hours,
		],
	),
	"field": sprintf("%s.gpu_count", [kind]),
	"hint": sprintf("%s%s", [gpu_hint(most), quieter(pool.count - pool.safety_buffer)]),
} if {
	subject.milli_gpus > reach

	# GPUs, or shares of this size, that the class could have if the cluster were empty.
	most := divided(reach, subject.gpu_milli)
	hours := concat("", [" at busy hours" | buffer > pool.safety_buffer; not internal])
}

asked(milli) := sprintf("%d GPUs", [subject.gpu_count]) if milli == 1000

asked(milli) := sprintf("%d shares of %d/1000 of a GPU", [subject.gpu_count, milli]) if {
	milli != 1000
}

gpu_hint(most) := sprintf("ask for a gpu_count of at most %d", [most]) if most > 0

gpu_hint(most) := "ask for another model or in another cluster" if most <= 0

# Where it is the hours that are in the way of so many GPUs.
quieter(otherwise) := sprintf(", or outside of %s", [concat(" and ", busy_names(busy))]) if {
	hours_in_the_way(otherwise)
}

quieter(otherwise) := "" if not hours_in_the_way(otherwise)

hours_in_the_way(otherwise) if {
	count(busy) > 0
	buffer > pool.safety_buffer
	subject.milli_gpus <= otherwise * 1000
}

busy_names(entries) := {name |
	some hours in entries
	name := sprintf("%02d:00 to %02d:00 UTC", [hours.from_hour, hours.until_hour])
}

# METADATA
# title: More bandwidth than the class could ever have here
# description: |
#   External work may fill only a share of the fabric, so that collectives of own work are not
#   starved. Large collectives need a share by the number of their GPUs.
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
# title: Collectives larger than the fabric
# description: |
#   Work of so many GPUs that its collectives would fill the links claims bandwidth for them, asked
#   for or not, and there is not enough.
# custom:
#   code: FABRIC_TOO_SMALL
#   controls: ["SOC2:A1.1"]
deny contains {
	"code": "FABRIC_TOO_SMALL",
	"message": sprintf(
		"collectives of %d GPUs need %d Gbit/s, and cluster %s has %d Gbit/s of fabric for %s",
		[
			subject.gpu_count, collective_gbps,
			input.cluster.id, fabric_reach, share,
		],
	),
	"field": sprintf("%s.gpu_count", [kind]),
	"hint": sprintf("ask for a gpu_count of at most %d", [
		max([collectives.from_gpus - 1, divided(fabric_reach, collectives.gbps_per_gpu)]),
	]),
} if {
	large
	collective_gbps > fabric_reach
}

# METADATA
# title: GPUs of the cluster
# description: |
#   Thousandths of a GPU of the model under evaluation. A job inside a lease takes none of the
#   cluster: the lease holds them.
# custom:
#   account: cluster/<cluster>/gpu/<model>
#   code: RESOURCE_UNAVAILABLE
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
#   account: lease/<lease>
#   code: RESOURCE_UNAVAILABLE
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
# description: Gbit/s over all GPUs together, for large collectives at least their need.
# custom:
#   account: cluster/<cluster>/fabric-gbps
#   code: RESOURCE_UNAVAILABLE
#   controls: ["SOC2:A1.1"]
claims contains {
	"account": sprintf("cluster/%s/fabric-gbps", [input.cluster.id]),
	"amount": fabric,
	"limit": fabric_reach,
	"code": "RESOURCE_UNAVAILABLE",
} if {
	fabric > 0
	not subject.lease_id
}

# METADATA
# title: Fabric of the lease
# description: Gbit/s of what the lease holds.
# custom:
#   account: lease/<lease>/fabric-gbps
#   code: RESOURCE_UNAVAILABLE
#   controls: ["SOC2:A1.1"]
claims contains {
	"account": sprintf("lease/%s/fabric-gbps", [subject.lease_id]),
	"amount": subject.fabric_gbps,
	"code": "RESOURCE_UNAVAILABLE",
} if {
	subject.fabric_gbps > 0
	subject.lease_id
}

# METADATA
# title: Congestion control
# description: |
#   Traffic that shares links with others is paced by the profile of its bandwidth: of those whose
#   threshold it reaches, the one with the highest.
# custom:
#   obligation: network.congestion-control
#   controls: ["SOC2:A1.1", "ISO27001:A.8.20"]
obligations contains {
	"id": "network.congestion-control",
	"params": {"profile": congestion_profile},
}

congestion_profile := [entry.profile |
	some entry in object.get(params, "congestion_profiles", [])
	entry.from_gbps == reached
][0]

reached := max([entry.from_gbps |
	some entry in object.get(params, "congestion_profiles", [])
	entry.from_gbps <= fabric
])

# --- params

# What no schema can tell; asked once, when the bundle is loaded.
params_wrong(given) := hours_wrong(given) | profiles_wrong(given)

# Hours that end when they begin are none, or the whole day: 0 to 24 says which.
hours_wrong(given) := {wrong |
	some at, hours in given.busy_hours
	hours.from_hour == hours.until_hour % 24
	hours.until_hour - hours.from_hour != 24
	wrong := {
		"path": sprintf("busy_hours[%d].until_hour", [at]),
		"message": sprintf("is %d, as from_hour: no hour, or all of them", [hours.until_hour]),
	}
}

profiles_wrong(given) := {wrong |
	some at, one in given.congestion_profiles
	some after, other in given.congestion_profiles
	at < after
	one.from_gbps == other.from_gbps
	wrong := {
		"path": sprintf("congestion_profiles[%d].from_gbps", [after]),
		"message": sprintf("is %d, as that of another profile", [other.from_gbps]),
	}
}
