# METADATA
# title: Quota of the tenant
# description: |
#   Claims what the request takes from its tenant: GPUs while it runs, GPU-seconds and bytes of the
#   month's budgets, and for tenants that are counted, one of so many at once. The ledger holds the claims
#   against the limits in the facts, all or none. What no ledger knows is refused here: requests
#   that are longer, larger or farther ahead than their class may be.
# custom:
#   owner: platform-quota
#   controls: ["SOC2:A1.1", "ISO27001:A.8.6"]
package placet.quota

import rego.v1

params := data.params

subject := input.lease

subject := input.job

kind := "lease" if input.lease

kind := "job" if input.job

# A bound of the request's class. An unlisted class gets 0: a param left out closes the door.
# Other things than numbers are an error.
bound(name) := to_number(object.get(object.get(params, name, {}), input.priority_class, 0))

# Whether a bound that may be left out is there. What is there and no mapping is an error.
given(name) if object.get(params, name, null) != null

# Seconds since 1970 as a date that a person can read.
date(seconds) := time.format(seconds * 1000000000)

maximum := bound("max_duration_seconds")

# METADATA
# title: Longer than the class may be
# description: |
#   Needs beyond the maximum are asked for again at its end, so that facts and policies are looked
#   at anew.
# custom:
#   code: DURATION_ABOVE_MAXIMUM
#   controls: ["SOC2:A1.1"]
deny contains object.union(
	{
		"code": "DURATION_ABOVE_MAXIMUM",
		"message": sprintf(
			"duration of %d s is above %d s, the maximum of class %s",
			[subject.duration_seconds, maximum, input.priority_class],
		),
		"field": sprintf("%s.duration_seconds", [kind]),
	},
	duration_hint,
) if {
	subject.duration_seconds > maximum
}

duration_hint := {"hint": sprintf("ask for at most %d s and again at their end", [maximum])} if {
	maximum > 0
}

duration_hint := {} if maximum <= 0

# METADATA
# title: More GPUs than a request of the class may have
# description: |
#   One request is one failure domain, and one hole when it ends. A share of a GPU counts as its
#   share.
# custom:
#   code: GPUS_ABOVE_MAXIMUM
#   controls: ["SOC2:A1.1"]
deny contains {
	"code": "GPUS_ABOVE_MAXIMUM",
	"message": sprintf(
		"%s are above %d GPUs, the maximum of one request of class %s",
		[asked(subject.gpu_milli), max_gpus, input.priority_class],
	),
	"field": sprintf("%s.gpu_count", [kind]),
	"hint": "ask for less, or for several requests together as a gang",
} if {
	given("max_gpus")
	max_gpus := bound("max_gpus")
	subject.milli_gpus > max_gpus * 1000
}

asked(milli) := sprintf("%d GPUs", [subject.gpu_count]) if milli == 1000

asked(milli) := sprintf("%d shares of %d/1000 of a GPU", [subject.gpu_count, milli]) if {
	milli != 1000
}

# METADATA
# title: Farther ahead than the class may book
# description: |
#   What is booked far ahead is held on facts that say little about that time. The same start may be
#   booked later. What goes on begins where it ends, however far ahead that is.
# custom:
#   code: LEAD_ABOVE_MAXIMUM
#   controls: ["SOC2:A1.1"]
deny contains {
	"code": "LEAD_ABOVE_MAXIMUM",
	"message": sprintf(
		"the start %s is %d s ahead, above %d s, the maximum of class %s",
		[date(subject.start), lead, most, input.priority_class],
	),
	"field": sprintf("%s.start", [kind]),
	"hint": sprintf("ask at %s or later, or for a start of at most %s", [
		date(subject.start - most),
		date(input.time + most),
	]),
	"retry": true,
} if {
	lead := subject.start - input.time
	lead > 0
	not subject.extends
	given("max_lead_seconds")
	most := bound("max_lead_seconds")
	lead > most
}

# METADATA
# title: Longer in all than the class may be
# description: |
#   What goes on again and again is held against a maximum for all of its time, so that capacity
#   comes back some day.
# custom:
#   code: EXTENDED_ABOVE_MAXIMUM
#   controls: ["SOC2:A1.1"]
deny contains {
	"code": "EXTENDED_ABOVE_MAXIMUM",
	"message": sprintf(
		"reservation %s would have %d s in all, above %d s, the maximum of class %s",
		[subject.extends.reservation_id, so_far + more, most, input.priority_class],
	),
	"field": sprintf("%s.duration_seconds", [kind]),
	"hint": extended_hint(most - so_far),
} if {
	so_far := subject.start - subject.extends.start
	more := subject.duration_seconds
	given("max_extended_seconds")
	most := bound("max_extended_seconds")
	so_far + more > most
}

# By the seconds that may still be added.
extended_hint(left) := sprintf("ask for at most %d s more", [left]) if left > 0

extended_hint(left) := "ask for a new lease or job" if left <= 0

# METADATA
# title: GPUs of the tenant
# description: |
#   Thousandths of a GPU, held while the request runs. A job inside a lease takes none: the lease
#   holds them, and its GPU-seconds are paid.
# custom:
#   account: tenant/<tenant>/gpu
#   controls: ["SOC2:A1.1", "ISO27001:A.8.6"]
claims contains {
	"account": sprintf("tenant/%s/gpu", [input.tenant.id]),
	"amount": subject.milli_gpus,
} if {
	not subject.lease_id
}

# METADATA
# title: Monthly budget of the tenant
# description: GPU-seconds, all of them used up within the month in which the work starts.
# custom:
#   account: tenant/<tenant>/gpu-seconds/<month>
#   controls: ["SOC2:A1.1"]
claims contains {
	"account": sprintf("tenant/%s/gpu-seconds/%s", [input.tenant.id, input.month]),
	"amount": subject.gpu_seconds,
} if {
	not subject.lease_id
}

# METADATA
# title: Bytes out of the cluster
# description: |
#   What the request says that it sends out, all of it used up within the month in which the work
#   starts. A job inside a lease counts for itself: leases hold no bytes.
# custom:
#   account: tenant/<tenant>/egress-bytes/<month>
#   controls: ["SOC2:A1.1"]
claims contains {
	"account": sprintf("tenant/%s/egress-bytes/%s", [input.tenant.id, input.month]),
	"amount": subject.egress_bytes,
} if {
	subject.egress_bytes > 0
}

# METADATA
# title: Bytes to and from storage
# description: As for bytes out of the cluster.
# custom:
#   account: tenant/<tenant>/storage-io-bytes/<month>
#   controls: ["SOC2:A1.1"]
claims contains {
	"account": sprintf("tenant/%s/storage-io-bytes/%s", [input.tenant.id, input.month]),
	"amount": subject.storage_io_bytes,
} if {
	subject.storage_io_bytes > 0
}

# METADATA
# title: How many at once
# description: |
#   One of the leases and jobs that the tenant may hold at a time, for tenants that the param lists.
#   Jobs inside a lease do not count: the lease does.
# custom:
#   account: tenant/<tenant>/concurrent
#   code: TOO_MANY_AT_ONCE
#   controls: ["SOC2:A1.1"]
claims contains {
	"account": sprintf("tenant/%s/concurrent", [input.tenant.id]),
	"amount": 1,
	"limit": max_at_once,
	"code": "TOO_MANY_AT_ONCE",
} if {
	not subject.lease_id
	max_at_once != null
}

max_at_once := object.get(object.get(params, "max_concurrent", {}), input.tenant.id, null)

# --- params

# What no schema can tell; asked once, when the bundle is loaded. A maximum for all of a
# reservation's time that is below that of one request would never be reached.
params_wrong(given) := {wrong |
	some class, most in given.max_extended_seconds
	longest := given.max_duration_seconds[class]
	most < longest
	wrong := {
		"path": sprintf("max_extended_seconds.%s", [class]),
		"message": sprintf("is %d, below max_duration_seconds of the class, %d", [most, longest]),
	}
}
