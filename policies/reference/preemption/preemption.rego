# METADATA
# title: Priority and preemption
# description: |
#   Says in which class a tenant may ask, who may displace others, where, and on what terms. Only
#   the house's own research may displace, and only sold work, within the grace and the least run
#   time that its contracts promise; a site may promise more, and so may the service level of the
#   tenant: that promise stands in the decision that admits the work, and stays when the params
#   change. Whom the engine chooses is the fewest GPU-seconds lost.
# custom:
#   owner: platform-scheduling
#   controls: ["SOC2:CC6.3", "SOC2:A1.1", "ISO27001:A.5.15"]
package placet.preemption

import rego.v1

params := data.params

subject := input.lease

subject := input.job

kind := "lease" if input.lease

kind := "job" if input.job

# Closed: a new class or kind of tenant may not displace until it is written here. Without a list
# of preemptors every own tenant is one.
preemptor if {
	input.priority_class == "INTERNAL_RESEARCH"
	input.tenant.kind == "OWN"
	input.tenant.id in object.get(params, "preemptors", [input.tenant.id])
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
# description: |
#   Only own tenants in class INTERNAL_RESEARCH may displace others, and where the params list
#   preemptors, only these.
# custom:
#   code: PREEMPTION_NOT_PERMITTED
#   controls: ["SOC2:CC6.3"]
deny contains {
	"code": "PREEMPTION_NOT_PERMITTED",
	"message": sprintf(
		"tenant %s of kind %s may not displace others in class %s",
		[input.tenant.id, input.tenant.kind, input.priority_class],
	),
	"field": may_preempt,
	"hint": "ask without may_preempt; only own tenants in class INTERNAL_RESEARCH may displace",
} if {
	subject.may_preempt
	not preemptor
}

may_preempt := sprintf("%s.may_preempt", [kind])

# METADATA
# title: Displacing where nobody is displaced
# description: |
#   What runs in some clusters was sold without the risk of being displaced. The request may pass
#   where there is room.
# custom:
#   code: PREEMPTION_NOT_HERE
#   controls: ["SOC2:A1.1"]
deny contains {
	"code": "PREEMPTION_NOT_HERE",
	"message": sprintf("nobody is displaced in cluster %s", [input.cluster.id]),
	"field": may_preempt,
	"hint": "ask without may_preempt, or in another cluster",
} if {
	subject.may_preempt
	preemptor
	input.cluster.id in object.get(params, "protected_clusters", [])
}

# METADATA
# title: Displacing for too little
# description: |
#   Who displaces others costs them what they have not saved, so it has to run for a while itself.
# custom:
#   code: PREEMPTION_TOO_SHORT
#   controls: ["SOC2:A1.1"]
deny contains {
	"code": "PREEMPTION_TOO_SHORT",
	"message": sprintf(
		"work of %d s may not displace others, only work of %d s and more",
		[subject.duration_seconds, min_gain_seconds],
	),
	"field": sprintf("%s.duration_seconds", [kind]),
	"hint": sprintf("ask without may_preempt, or for at least %d s", [min_gain_seconds]),
} if {
	subject.may_preempt
	preemptor
	subject.duration_seconds < min_gain_seconds
}

min_gain_seconds := object.get(params, "min_gain_seconds", 0)

# --- terms

# What the site promises beyond the terms for all.
site_terms := [promise |
	subject.may_preempt
	some promise in object.get(params, "terms", [])
	input.cluster.id in promise.clusters
]

# Of each term the one that is best for the victim.
of_site(name) := [promise[name] | some promise in site_terms]

# METADATA
# title: Whom own research may displace
# description: |
#   Terms for the victims, from the params. A param left out leaves no rule, and so nobody to
#   displace; but for whom else the rule spares, whom it names if the params do.
# custom:
#   controls: ["SOC2:A1.1"]
preemption := object.union(object.filter(params, sparing), {
	"victim_classes": params.victim_classes,
	"grace_seconds": max(array.concat([params.grace_seconds], of_site("grace_seconds"))),
	"min_runtime_seconds": max(array.concat(
		[params.min_runtime_seconds],
		of_site("min_runtime_seconds"),
	)),
	"max_victims": min(array.concat([params.max_victims], of_site("max_victims"))),
}) if {
	subject.may_preempt
	preemptor
}

sparing := {"cool_down_seconds", "max_victims_per_tenant", "protected_tenants"}

# --- service levels

# Work that may be displaced, by whomever.
sold if input.priority_class in params.victim_classes

sla := object.get(input.tenant, "sla", "default")

# METADATA
# title: What sold work is promised should it be displaced
# description: |
#   By the service level of the tenant's contract; that of the params named default without one.
#   Who displaces it later is held to it, and to the terms of the day if these are better.
# custom:
#   controls: ["SOC2:A1.1"]
terms := params.sla[sla] if sold

# METADATA
# title: A service level that nobody wrote down
# description: What the contract promises is not known, so that it could not be kept.
# custom:
#   code: SLA_UNKNOWN
#   controls: ["SOC2:A1.1"]
deny contains {
	"code": "SLA_UNKNOWN",
	"message": sprintf("service level %s of tenant %s is not known", [sla, input.tenant.id]),
	"hint": "have it added to the params of policy preemption, or mended in the facts",
} if {
	sold
	input.tenant.sla
	not params.sla[sla]
}

# --- params

# What no schema can tell; asked once, when the bundle is loaded. A grace above the minimum run time
# would let a victim go that never had the time it was promised; so would a notice.
params_wrong(given) := {wrong |
	some path, promise in all_terms(given)
	grace := max([given.grace_seconds, object.get(promise, "grace_seconds", 0)])
	least := max([given.min_runtime_seconds, object.get(promise, "min_runtime_seconds", 0)])
	grace > least
	wrong := {
		"path": path,
		"message": sprintf("comes to %d, above a min_runtime_seconds of %d", [grace, least]),
	}
} | {wrong |
	some level, promise in given.sla
	promise.notice_seconds > promise.min_runtime_seconds
	wrong := {
		"path": sprintf("sla.%s.notice_seconds", [level]),
		"message": sprintf(
			"is %d, above a min_runtime_seconds of %d",
			[promise.notice_seconds, promise.min_runtime_seconds],
		),
	}
}

# The terms for all, and those of each site, by their paths.
all_terms(given) := object.union({"grace_seconds": {}}, {path: promise |
	some at, promise in given.terms
	path := sprintf("terms[%d].grace_seconds", [at])
})
