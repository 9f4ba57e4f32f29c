# METADATA
# title: Compliance
# description: |
#   Customers and the clusters that they use must hold the attestations that contracts and law ask
#   for, valid when the work starts and, of some frameworks, until it ends; hosted models are used
#   under a licence; GPU models and weights are under export control; some places are under embargo;
#   and sensitive or regulated work is encrypted and audited.
# custom:
#   owner: compliance-engineering
#   controls: ["SOC2:CC9.2", "ISO27001:A.5.19", "ISO27001:A.5.31"]
package placet.compliance

import rego.v1

params := data.params

subject := input.lease

subject := input.job

kind := "lease" if input.lease

kind := "job" if input.job

seconds_per_day := 86400

# Reasons name at most so many models or places; the answer stays within the engine's bounds.
most_named := 4

# Seconds since 1970 as a date that a person can read.
date(seconds) := time.format(seconds * 1000000000)

# --- attestations

required := params.required[input.tenant.kind]

# Whose attestations are looked at, under which field of the request a lack of them is reported.
parties := [
	{
		"name": sprintf("tenant %s", [input.tenant.id]),
		"field": "tenant_id",
		"required": required.tenant,
		"attestations": input.tenant.attestations,
	},
	{
		"name": sprintf("cluster %s", [input.cluster.id]),
		"field": sprintf("%s.cluster_id", [kind]),
		"required": required_of_cluster,
		"attestations": input.cluster.attestations,
	},
]

# What the kind of the tenant asks of a cluster, and what the frameworks ask that the tenant was
# ever attested under.
required_of_cluster := {framework | some framework in required.cluster} | {framework |
	some attestation in input.tenant.attestations
	some framework in object.get(params, "required_by_framework", {})[attestation.framework]
}

# Valid when the work starts: an advance reservation may wait for an attestation.
valid(attestation) if {
	attestation.valid_from <= subject.start
	subject.start < attestation.valid_until
}

# Ends of the valid attestations of a framework: empty if there are none.
valid_ends(party, framework) := [attestation.valid_until |
	some attestation in party.attestations
	attestation.framework == framework
	valid(attestation)
]

# Ends of those that are over by then.
past_ends(party, framework) := [attestation.valid_until |
	some attestation in party.attestations
	attestation.framework == framework
	attestation.valid_until <= subject.start
]

# Beginnings of those that are still to come then.
future_beginnings(party, framework) := [attestation.valid_from |
	some attestation in party.attestations
	attestation.framework == framework
	subject.start < attestation.valid_from
]

# What is required and not valid then.
lacking contains {"party": party, "framework": framework} if {
	some party in parties
	some framework in party.required
	count(valid_ends(party, framework)) == 0
}

# METADATA
# title: No attestation
# description: A required framework was never attested.
# custom:
#   code: ATTESTATION_MISSING
#   controls: ["SOC2:CC9.2", "ISO27001:A.5.19"]
deny contains {
	"code": "ATTESTATION_MISSING",
	"message": sprintf("%s has no attestation of %s", [lack.party.name, lack.framework]),
	"field": lack.party.field,
	"hint": sprintf("have an attestation of %s recorded in the facts", [lack.framework]),
} if {
	some lack in lacking
	count(past_ends(lack.party, lack.framework)) == 0
	count(future_beginnings(lack.party, lack.framework)) == 0
}

ends(end) := "ended" if end <= input.time

ends(end) := "ends" if end > input.time

# METADATA
# title: Attestation over
# description: |
#   A required attestation has ended when the work starts, and none has been recorded after it.
# custom:
#   code: ATTESTATION_EXPIRED
#   controls: ["SOC2:CC9.2", "ISO27001:A.5.19"]
deny contains {
	"code": "ATTESTATION_EXPIRED",
	"message": sprintf(
		"attestation of %s of %s %s at %s",
		[lack.framework, lack.party.name, ends(max(past)), date(max(past))],
	),
	"field": lack.party.field,
	"hint": sprintf("have a current attestation of %s recorded in the facts", [lack.framework]),
} if {
	some lack in lacking
	past := past_ends(lack.party, lack.framework)
	count(past) > 0
	count(future_beginnings(lack.party, lack.framework)) == 0
}

# METADATA
# title: Attestation to come
# description: |
#   A required attestation is recorded but begins after the work. The same request may pass from
#   then on, unless it names its start.
# custom:
#   code: ATTESTATION_NOT_YET_VALID
#   controls: ["SOC2:CC9.2", "ISO27001:A.5.19"]
deny contains {
	"code": "ATTESTATION_NOT_YET_VALID",
	"message": sprintf(
		"attestation of %s of %s begins at %s",
		[lack.framework, lack.party.name, date(min(future))],
	),
	"field": lack.party.field,
	"hint": sprintf(wait_hint, [date(min(future))]),
	"retry": subject.start == input.time,
} if {
	some lack in lacking
	future := future_beginnings(lack.party, lack.framework)
	count(future) > 0
}

wait_hint := "ask again after %s, or for a start from then on" if subject.start == input.time

wait_hint := "ask for a start from %s on" if subject.start > input.time

# First second after the work.
work_end := subject.start + subject.duration_seconds

# Ends during the work at which no other attestation of the framework goes on.
gaps(party, framework) := [attestation.valid_until |
	some attestation in party.attestations
	attestation.framework == framework
	subject.start < attestation.valid_until
	attestation.valid_until < work_end
	not renewed(party, framework, attestation.valid_until)
]

# METADATA
# title: Attestation that ends before the work
# description: |
#   Of some frameworks an attestation has to hold until the work ends, renewed without a gap if need
#   be; of the others an end during the work is warned of.
# custom:
#   code: ATTESTATION_ENDS_EARLY
#   controls: ["SOC2:CC9.2", "ISO27001:A.5.19"]
deny contains {
	"code": "ATTESTATION_ENDS_EARLY",
	"message": sprintf(
		"attestation of %s of %s ends at %s, before the work does",
		[framework, party.name, date(min(early))],
	),
	"field": sprintf("%s.duration_seconds", [kind]),
	"hint": sprintf("ask for at most %d s, or have the renewal recorded in the facts", [
		min(early) - subject.start,
	]),
} if {
	some party in parties
	some framework in party.required
	framework in object.get(params, "cover_whole_work", [])
	early := gaps(party, framework)
	count(early) > 0
	count(valid_ends(party, framework)) > 0
}

# Attested without a gap beyond this end.
renewed(party, framework, end) if {
	some attestation in party.attestations
	attestation.framework == framework
	attestation.valid_from <= end
	attestation.valid_until > end
}

# The later of the warning time, counted from the start, and the end of the work.
horizon := subject.start + max([
	to_number(object.get(params, "warn_days", 0)) * seconds_per_day,
	subject.duration_seconds,
])

# METADATA
# title: Attestation that ends soon
# description: |
#   A required attestation ends within the warning time after the start, or before the work does,
#   and is not renewed.
# custom:
#   code: ATTESTATION_EXPIRES_SOON
#   controls: ["SOC2:CC9.2"]
warn contains {
	"code": "ATTESTATION_EXPIRES_SOON",
	"message": sprintf("attestation of %s of %s ends at %s", [framework, party.name, date(end)]),
} if {
	some party in parties
	some framework in party.required
	ends := valid_ends(party, framework)
	count(ends) > 0
	end := max(ends)
	end < horizon
	not renewed(party, framework, end)
}

# --- licences

# Models of others that are not public, and not licensed for everything.
bound := [{"model": model, "licences": licences} |
	some model in input.models
	model.classification != "PUBLIC"
	model.owner != input.tenant.id
	not model.id in input.tenant.licensed_models
	licences := [licence | some licence in input.tenant.licences; licence.model == model.id]
]

unlicensed := [one.model | some one in bound; count(one.licences) == 0]

# METADATA
# title: Model without a licence
# description: |
#   Hosted models are for their owner, for licensed tenants, and for everybody if their weights are
#   public. A licence may be for some uses and some time only.
# custom:
#   code: MODEL_NOT_LICENSED
#   controls: ["ISO27001:A.5.32"]
deny contains {
	"code": "MODEL_NOT_LICENSED",
	"message": sprintf(
		"model %s of %s is %s and not licensed to tenant %s",
		[model.id, model.owner, model.classification, input.tenant.id],
	),
	"field": sprintf("%s.model_ids", [kind]),
	"hint": sprintf("have model %s licensed, or leave it out", [model.id]),
} if {
	some model in array.slice(unlicensed, 0, most_named)
}

# Licensed for some uses and some time, with the licences for what the request does.
in_part := [{"model": one.model, "licences": licences, "uses": uses} |
	some one in bound
	count(one.licences) > 0
	uses := sort({use | some licence in one.licences; some use in licence.uses})
	licences := [licence | some licence in one.licences; subject.model_use in licence.uses]
]

# METADATA
# title: Use of a model that is not told
# description: |
#   A licence for some uses allows nothing to a request that does not say what it does.
# custom:
#   code: MODEL_USE_NOT_STATED
#   controls: ["ISO27001:A.5.32"]
deny contains {
	"code": "MODEL_USE_NOT_STATED",
	"message": sprintf(
		"model %s is licensed to tenant %s for some uses only, and the request names none",
		[one.model.id, input.tenant.id],
	),
	"field": sprintf("%s.model_use", [kind]),
	"hint": sprintf("say what it is used for: %s", [concat(" or ", one.uses)]),
} if {
	not subject.model_use
	some one in array.slice(in_part, 0, most_named)
}

# METADATA
# title: A use that is not licensed
# description: The licence is for other uses.
# custom:
#   code: LICENCE_NOT_FOR_USE
#   controls: ["ISO27001:A.5.32"]
deny contains {
	"code": "LICENCE_NOT_FOR_USE",
	"message": sprintf(
		"model %s is licensed to tenant %s for %s, not for %s",
		[one.model.id, input.tenant.id, concat(" and ", one.uses), subject.model_use],
	),
	"field": sprintf("%s.model_use", [kind]),
	"hint": sprintf("have model %s licensed for it, or leave it out", [one.model.id]),
} if {
	subject.model_use
	some one in array.slice(in_part, 0, most_named)
	count(one.licences) == 0
}

# Licensed for the use, but not when the work starts: when that was, and when it will be.
out_of_time := [{"model": one.model, "past": past, "future": future} |
	some one in in_part
	count(one.licences) > 0
	count([licence | some licence in one.licences; valid(licence)]) == 0
	past := [licence.valid_until |
		some licence in one.licences
		licence.valid_until <= subject.start
	]
	future := [licence.valid_from |
		some licence in one.licences
		subject.start < licence.valid_from
	]
]

# METADATA
# title: Licence over
# description: |
#   The licence for the use has ended when the work starts, and none has been recorded after it.
# custom:
#   code: LICENCE_EXPIRED
#   controls: ["ISO27001:A.5.32"]
deny contains {
	"code": "LICENCE_EXPIRED",
	"message": sprintf("licence of tenant %s for model %s %s at %s", [
		input.tenant.id, one.model.id,
		ends(max(one.past)), date(max(one.past)),
	]),
	"field": sprintf("%s.model_ids", [kind]),
	"hint": sprintf("have model %s licensed again, or leave it out", [one.model.id]),
} if {
	some one in array.slice(out_of_time, 0, most_named)
	count(one.future) == 0
}

# METADATA
# title: Licence to come
# description: |
#   The licence for the use is recorded but begins after the work. The same request may pass from
#   then on, unless it names its start.
# custom:
#   code: LICENCE_NOT_YET_VALID
#   controls: ["ISO27001:A.5.32"]
deny contains {
	"code": "LICENCE_NOT_YET_VALID",
	"message": sprintf("licence of tenant %s for model %s begins at %s", [
		input.tenant.id, one.model.id,
		date(min(one.future)),
	]),
	"field": sprintf("%s.model_ids", [kind]),
	"hint": sprintf(wait_hint, [date(min(one.future))]),
	"retry": subject.start == input.time,
} if {
	some one in array.slice(out_of_time, 0, most_named)
	count(one.future) > 0
}

# Ends during the work after which no other of the licences goes on.
licence_gaps(licences) := [licence.valid_until |
	some licence in licences
	subject.start < licence.valid_until
	licence.valid_until < work_end
	not goes_on(licences, licence.valid_until)
]

goes_on(licences, end) if {
	some licence in licences
	licence.valid_from <= end
	licence.valid_until > end
}

# METADATA
# title: Licence that ends before the work
# description: Weights are not used beyond the licence, renewed without a gap if need be.
# custom:
#   code: LICENCE_ENDS_EARLY
#   controls: ["ISO27001:A.5.32"]
deny contains {
	"code": "LICENCE_ENDS_EARLY",
	"message": sprintf(
		"licence of tenant %s for model %s ends at %s, before the work does",
		[input.tenant.id, one.model.id, date(min(early))],
	),
	"field": sprintf("%s.duration_seconds", [kind]),
	"hint": sprintf("ask for at most %d s, or have the renewal recorded in the facts", [
		min(early) - subject.start,
	]),
} if {
	some one in array.slice(in_part, 0, most_named)
	count([licence | some licence in one.licences; valid(licence)]) > 0
	early := licence_gaps(one.licences)
	count(early) > 0
}

# --- export control

controls := [control |
	some control in params.export_control
	controlled_by(control)
]

controlled_by(control) if subject.gpu_model in control.gpu_models

# An entry that names no models is taken to mean every model.
controlled_by(control) if not is_array(control.gpu_models)

# METADATA
# title: GPU model where it may not be
# description: A controlled GPU model is used only in clusters that stand in listed jurisdictions.
# custom:
#   code: EXPORT_CONTROLLED
#   controls: ["ISO27001:A.5.31"]
deny contains {
	"code": "EXPORT_CONTROLLED",
	"message": sprintf(
		"GPU model %s is under export control and may not be used in %s, where cluster %s stands",
		[subject.gpu_model, input.cluster.jurisdiction, input.cluster.id],
	),
	"field": sprintf("%s.cluster_id", [kind]),
	"hint": "ask for another GPU model or in another jurisdiction",
} if {
	some control in controls
	not input.cluster.jurisdiction in control.cluster_jurisdictions
}

# An empty text is in no list of jurisdictions, so a customer without a recorded seat is refused.
seat := object.get(input.tenant, "seat", "")

seat_name := seat if seat != ""

seat_name := "a place not on record" if seat == ""

# METADATA
# title: GPU model for whom it may not be
# description: |
#   A controlled GPU model is used only by customers whose seat the facts know to be in listed
#   jurisdictions.
# custom:
#   code: EXPORT_CONTROLLED
#   controls: ["ISO27001:A.5.31"]
deny contains {
	"code": "EXPORT_CONTROLLED",
	"message": sprintf(
		"GPU model %s is under export control and may not be used by tenant %s with its seat in %s",
		[subject.gpu_model, input.tenant.id, seat_name],
	),
	"field": "tenant_id",
	"hint": "ask for another GPU model, or have compliance verify the seat",
} if {
	input.tenant.kind != "OWN"
	some control in controls
	not seat in control.tenant_jurisdictions
}

# METADATA
# title: Weights where they may not be
# description: Weights of listed classes are used only in clusters in listed jurisdictions.
# custom:
#   code: WEIGHTS_EXPORT_CONTROLLED
#   controls: ["ISO27001:A.5.31"]
deny contains {
	"code": "WEIGHTS_EXPORT_CONTROLLED",
	"message": sprintf(
		"weights of model %s are %s and may not be used in %s, where cluster %s stands",
		[
			model.id, model.classification,
			input.cluster.jurisdiction, input.cluster.id,
		],
	),
	"field": sprintf("%s.cluster_id", [kind]),
	"hint": "ask in another jurisdiction, or leave the model out",
} if {
	some model in array.slice(controlled_weights, 0, most_named)
}

controlled_weights := [model |
	some model in input.models
	not allowed_here(model)
]

# By every entry that names the class of the weights.
allowed_here(model) if {
	every control in object.get(params, "weights_control", []) {
		allowed_by(control, model)
	}
}

allowed_by(control, model) if not model.classification in control.classifications

allowed_by(control, _) if input.cluster.jurisdiction in control.cluster_jurisdictions

# --- embargo

embargoed := object.get(params, "embargoed", [])

# METADATA
# title: A cluster under embargo
# description: Nothing runs in an embargoed jurisdiction, whatever its classification.
# custom:
#   code: DESTINATION_EMBARGOED
#   controls: ["ISO27001:A.5.31"]
deny contains {
	"code": "DESTINATION_EMBARGOED",
	"message": sprintf("%s, where cluster %s stands, is under embargo", [
		input.cluster.jurisdiction,
		input.cluster.id,
	]),
	"field": sprintf("%s.cluster_id", [kind]),
	"hint": "ask in another jurisdiction",
} if {
	input.cluster.jurisdiction in embargoed
}

# METADATA
# title: A customer under embargo
# description: Nothing is sold to a seat in an embargoed jurisdiction.
# custom:
#   code: DESTINATION_EMBARGOED
#   controls: ["ISO27001:A.5.31"]
deny contains {
	"code": "DESTINATION_EMBARGOED",
	"message": sprintf("%s, where tenant %s has its seat, is under embargo", [seat, input.tenant.id]),
	"field": "tenant_id",
	"hint": "have compliance verify the seat",
} if {
	seat in embargoed
}

# METADATA
# title: Results under embargo
# description: Nothing is sent to an embargoed jurisdiction.
# custom:
#   code: DESTINATION_EMBARGOED
#   controls: ["ISO27001:A.5.31"]
deny contains {
	"code": "DESTINATION_EMBARGOED",
	"message": sprintf("%s, where results would be written, is under embargo", [
		concat(" and ", array.slice(embargoed_results, 0, most_named)),
	]),
	"field": sprintf("%s.checkpoint_jurisdictions", [kind]),
	"hint": "write them elsewhere",
} if {
	count(embargoed_results) > 0
}

# METADATA
# title: Egress under embargo
# description: Nothing is read out or sent to an embargoed jurisdiction.
# custom:
#   code: DESTINATION_EMBARGOED
#   controls: ["ISO27001:A.5.31"]
deny contains {
	"code": "DESTINATION_EMBARGOED",
	"message": sprintf("%s, where results would be sent, is under embargo", [
		concat(" and ", array.slice(embargoed_egress, 0, most_named)),
	]),
	"field": sprintf("%s.egress_jurisdictions", [kind]),
	"hint": "send them elsewhere",
} if {
	count(embargoed_egress) > 0
}

embargoed_egress := [jurisdiction |
	some jurisdiction in subject.egress_jurisdictions
	jurisdiction in embargoed
]

embargoed_results := [jurisdiction |
	some jurisdiction in subject.checkpoint_jurisdictions
	jurisdiction in embargoed
]

# --- encryption and audit

rank := {"PUBLIC": 0, "INTERNAL": 1, "CONFIDENTIAL": 2, "RESTRICTED": 3}

classes := ["PUBLIC", "INTERNAL", "CONFIDENTIAL", "RESTRICTED"]

regulated if {
	some attestation in input.tenant.attestations
	attestation.framework in params.audit.frameworks
}

# The highest class among data and weights.
data_rank := max(array.concat(
	[rank[dataset.classification] | some dataset in input.datasets],
	array.concat([rank[model.classification] | some model in input.models], [0]),
))

# Regulated work counts as of a class at least.
work_rank := max([data_rank, regulated_rank]) if regulated

work_rank := data_rank if not regulated

regulated_rank := rank[params.encryption.regulated]

# The strictest, if the param names no class.
regulated_rank := 3 if not rank[params.encryption.regulated]

# METADATA
# title: Encrypt sensitive work
# description: |
#   How disks and links are encrypted, by the highest class of data and weights; a class without a
#   level of its own has that of the next lower one.
# custom:
#   obligation: encryption
#   controls: ["SOC2:CC6.7", "ISO27001:A.8.24"]
obligations contains {
	"id": "encryption",
	"params": {"at_rest": encryption.at_rest, "in_transit": encryption.in_transit},
}

encryption := params.encryption.levels[classes[highest]]

highest := max([rank[class] |
	some class, _ in params.encryption.levels
	rank[class] <= work_rank
])

audited if regulated

audited if data_rank >= rank[params.audit.from_classification]

# METADATA
# title: Audit sensitive work and that of regulated tenants
# description: |
#   Whoever was ever attested under a listed framework is regulated, also while an attestation is
#   renewed.
# custom:
#   obligation: audit.level
#   controls: ["SOC2:CC7.2", "ISO27001:A.8.15"]
obligations contains {
	"id": "audit.level",
	"params": {"level": object.get(params.audit, "level", "full")},
} if {
	audited
}

# --- params

# METADATA
# title: Params that are not there
# description: |
#   Without its lists the policy could not refuse, so it refuses everything until they are set.
# custom:
#   code: PARAMS_INCOMPLETE
deny contains {
	"code": "PARAMS_INCOMPLETE",
	"message": sprintf("param %s of policy compliance is no list", [name]),
	"hint": "set it in bundle.yaml",
} if {
	some name in absent_params
}

absent_params contains sprintf("required.%s.tenant", [input.tenant.kind]) if {
	not is_array(required.tenant)
}

absent_params contains sprintf("required.%s.cluster", [input.tenant.kind]) if {
	not is_array(required.cluster)
}

absent_params contains "export_control" if not is_array(params.export_control)

absent_params contains "audit.frameworks" if not is_array(params.audit.frameworks)

# What no schema can tell; asked once, when the bundle is loaded.
params_wrong(given) := union({
	exports_wrong(given),
	weights_wrong(given),
	weaker(given),
	uncovered(given),
})

exports_wrong(given) := {wrong |
	some at, control in given.export_control
	some list in ["cluster_jurisdictions", "tenant_jurisdictions"]
	some index, jurisdiction in control[list]
	jurisdiction in object.get(given, "embargoed", [])
	wrong := {
		"path": sprintf("export_control[%d].%s[%d]", [at, list, index]),
		"message": sprintf("is %s, which is under embargo", [jurisdiction]),
	}
}

weights_wrong(given) := {wrong |
	some at, control in given.weights_control
	some index, jurisdiction in control.cluster_jurisdictions
	jurisdiction in object.get(given, "embargoed", [])
	wrong := {
		"path": sprintf("weights_control[%d].cluster_jurisdictions[%d]", [at, index]),
		"message": sprintf("is %s, which is under embargo", [jurisdiction]),
	}
}

# What encrypts better has the higher number.
strength := {"operator-keys": 0, "tenant-keys": 1, "tls": 0, "mutual-tls": 1}

weaker(given) := {wrong |
	some lower, one in given.encryption.levels
	some higher, other in given.encryption.levels
	rank[lower] < rank[higher]
	some name in ["at_rest", "in_transit"]
	strength[other[name]] < strength[one[name]]
	wrong := {
		"path": sprintf("encryption.levels.%s.%s", [higher, name]),
		"message": sprintf("is %s, weaker than that of %s", [other[name], lower]),
	}
}

# Nothing would be covered, as nobody has to have the attestation.
uncovered(given) := {wrong |
	some at, framework in given.cover_whole_work
	not framework in needed(given)
	wrong := {
		"path": sprintf("cover_whole_work[%d]", [at]),
		"message": sprintf("is %s, which nothing requires", [framework]),
	}
}

needed(given) := {framework |
	some sides in given.required
	some frameworks in sides
	some framework in frameworks
} | {framework |
	some frameworks in given.required_by_framework
	some framework in frameworks
}
