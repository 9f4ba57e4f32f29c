# METADATA
# title: Quota of the tenant
# description: |
#   Claims what the request takes from its tenant: GPUs while it runs, and GPU-seconds of the
#   month's budget. The ledger holds the claims against the limits in the facts, all or none. The
#   only thing refused here is a request that is longer than its class may be, since no ledger knows
#   that.
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

# An unlisted class gets 0, so that a param left out closes the door. Other things than numbers are
# an error.
maximum := to_number(object.get(
	object.get(params, "max_duration_seconds", {}),
	input.priority_class,
	0,
))

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
# title: GPUs of the tenant
# description: |
#   Thousandths of a GPU, held while the request runs. A job inside a lease takes none: the lease
#   holds them, and its GPU-seconds are paid.
# custom:
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
#   controls: ["SOC2:A1.1"]
claims contains {
	"account": sprintf("tenant/%s/gpu-seconds/%s", [input.tenant.id, input.month]),
	"amount": subject.gpu_seconds,
} if {
	not subject.lease_id
}
