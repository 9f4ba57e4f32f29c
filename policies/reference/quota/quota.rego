# METADATA
# title: Quota of the tenant
# description: |
#   Claims what the request takes from its tenant: GPUs while it runs, GPU-seconds of the month's
#   budget, and for tenants that are counted, one of so many at once. The ledger holds the claims
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
		[asked, max_gpus, input.priority_class],
	),
	"field": sprintf("%s.gpu_count", [kind]),
	"hint": "ask for less, or for several requests together as a gang",
} if {
	given("max_gpus")
	subject.milli_gpus > max_gpus * 1000
}

max_gpus := bound("max_gpus")

asked := sprintf("%d GPUs", [subject.gpu_count]) if subject.gpu_milli == 1000

asked := sprintf("%d shares of %d/1000 of a GPU", [subject.gpu_count, subject.gpu_milli]) if {
	subject.gpu_milli != 1000
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
		[date(subject.start), lead, max_lead, input.priority_class],
	),
	"field": sprintf("%s.start", [kind]),
	"hint": sprintf("ask at %s or later, or for a start of at most %s", [
		date(subject.start - max_lead),
		date(input.time + max_lead),
	]),
	"retry": true,
} if {
	given("max_lead_seconds")
	not subject.extends
	lead > max_lead
}

lead := subject.start - input.time

max_lead := bound("max_lead_seconds")

# METADATA
# title: Longer in all than the class may be
# description: |
#   What goes on again and again is held against a maximum for all of its time, so that capacity
#   comes back some day.
# custom:
#   code: EXTENDED_ABOVE_MAXIMUM
#   controls: ["SOC2:A1.1"]
deny contains object.union(
	{
		"code": "EXTENDED_ABOVE_MAXIMUM",
		"message": sprintf(
			"reservation %s would have %d s in all, above %d s, the maximum of class %s",
			[subject.extends.reservation_id, in_all, max_in_all, input.priority_class],
		),
		"field": sprintf("%s.duration_seconds", [kind]),
	},
	extended_hint,
) if {
	given("max_extended_seconds")
	in_all > max_in_all
}

in_all := (subject.start - subject.extends.start) + subject.duration_seconds

max_in_all := bound("max_extended_seconds")

# Seconds that may still be added.
left_over := max_in_all - (subject.start - subject.extends.start)

extended_hint := {"hint": sprintf("ask for at most %d s more", [left_over])} if left_over > 0

extended_hint := {"hint": "ask for a new lease or job"} if left_over <= 0

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

# METADATA
# title: Params that contradict each other
# description: |
#   A maximum for all of a reservation's time that is below that of one request would never be
#   reached. Nothing is admitted until the params are mended.
# custom:
#   code: PARAMS_CONTRADICTORY
deny contains {
	"code": "PARAMS_CONTRADICTORY",
	"message": sprintf("param %s of policy quota %s", [wrong.path, wrong.message]),
	"hint": "mend it in bundle.yaml",
} if {
	some wrong in params_wrong
}

params_wrong contains {
	"path": sprintf("max_extended_seconds.%s", [class]),
	"message": sprintf("is %d, below max_duration_seconds of the class, %d", [most, longest]),
} if {
	some class, most in params.max_extended_seconds
	longest := params.max_duration_seconds[class]
	most < longest
}
