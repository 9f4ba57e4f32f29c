# METADATA
# title: Priority and preemption
# description: |
#   Says in which class a tenant may ask, who may displace others, and on what terms. Only the
#   house's own research may displace, and only sold work, within the grace and the least run time
#   that its contracts promise.
# custom:
#   owner: platform-scheduling
#   controls: ["SOC2:CC6.3", "SOC2:A1.1", "ISO27001:A.5.15"]
package placet.preemption

import rego.v1

subject := input.lease

subject := input.job

kind := "lease" if input.lease

kind := "job" if input.job

# Closed: a new class or kind of tenant may not displace until it is written here.
preemptor if {
	input.priority_class == "INTERNAL_RESEARCH"
	input.tenant.kind == "OWN"
}

# METADATA
# title: A class that the tenant may not use
# description: The classes of a tenant are in its facts.
# custom:
#   code: CLASS_NOT_PERMITTED
#   controls: ["SOC2:CC6.3", "ISO27001:A.5.15"]
deny contains object.union(
	{
		"code": "CLASS_NOT_PERMITTED",
		"message": sprintf(
			"tenant %s may not ask in class %s",
			[input.tenant.id, input.priority_class],
		),
		"field": "priority_class",
	},
	class_hint,
) if {
	not input.priority_class in input.tenant.priority_classes
}

class_hint := {"hint": sprintf("ask in class %s", [classes])} if {
	count(input.tenant.priority_classes) > 0
}

classes := concat(" or ", input.tenant.priority_classes)

class_hint := {} if count(input.tenant.priority_classes) == 0

# METADATA
# title: Displacing without the right to
# description: Only own tenants in class INTERNAL_RESEARCH may displace others.
# custom:
#   code: PREEMPTION_NOT_PERMITTED
#   controls: ["SOC2:CC6.3"]
deny contains {
	"code": "PREEMPTION_NOT_PERMITTED",
	"message": sprintf(
		"tenant %s of kind %s may not displace others in class %s",
		[input.tenant.id, input.tenant.kind, input.priority_class],
	),
	"field": sprintf("%s.may_preempt", [kind]),
	"hint": "ask without may_preempt; only own tenants in class INTERNAL_RESEARCH may displace",
} if {
	subject.may_preempt
	not preemptor
}

# METADATA
# title: Whom own research may displace
# description: |
#   Terms for the victims, from the params. A param left out leaves no rule, and so nobody to
#   displace.
# custom:
#   controls: ["SOC2:A1.1"]
preemption := {
	"victim_classes": data.params.victim_classes,
	"grace_seconds": data.params.grace_seconds,
	"min_runtime_seconds": data.params.min_runtime_seconds,
	"max_victims": data.params.max_victims,
} if {
	subject.may_preempt
	preemptor
}
