# METADATA
# title: How long work may run
# description: |
#   Work that runs for months escapes every review. What needs longer asks again at its end, when
#   policies and facts are looked at anew.
# custom:
#   owner: your-team
#   controls: ["SOC2:A1.1"]
package placet.@package@

import rego.v1

# What is asked for is a lease or a job; both have the fields that are read here.
subject := input.lease

subject := input.job

kind := "lease" if input.lease

kind := "job" if input.job

# Seconds for the class of the request. A class that is not listed gets 0: what is left out refuses.
# The schema beside this file makes sure that the list itself is there.
maximum := object.get(data.params.max_duration_seconds, input.priority_class, 0)

# METADATA
# title: Longer than the class may be
# custom:
#   code: DURATION_ABOVE_MAXIMUM
deny contains {
	"code": "DURATION_ABOVE_MAXIMUM",
	"message": sprintf(
		"%d s are above %d s, the maximum of class %s",
		[subject.duration_seconds, maximum, input.priority_class],
	),
	"field": sprintf("%s.duration_seconds", [kind]),
	"hint": "ask for less, and again at its end",
} if {
	subject.duration_seconds > maximum
}
