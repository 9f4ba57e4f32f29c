# METADATA
# title: Data residency
# description: |
#   Work runs, and its results are written and sent, only where the tenant's contract and every
#   dataset allow it. Jurisdictions are sets, ordered by inclusion: an empty list allows any place, several lists
#   allow what is in all of them, and where nothing is, those that exclude each other are named.
#   Personal data without a list of its own goes only where its protection is adequate.
# custom:
#   owner: privacy-office
#   controls: ["SOC2:P6.1", "ISO27001:A.5.23", "ISO27001:A.5.31", "ISO27001:A.5.34"]
package placet.residency

import rego.v1

params := data.params

subject := input.lease

subject := input.job

kind := "lease" if input.lease

kind := "job" if input.job

place := input.cluster.jurisdiction

adequate := {jurisdiction | some jurisdiction in object.get(params, "adequate", [])}

# Reasons name at most so many datasets or parties, one dataset of each kind where results go astray,
# and lists at most so many entries: the answer stays within the engine's bounds.
most_named := 3

most_strays := 1

most_listed := 12

listed(names) := concat(", ", [short(name) | some name in sort(names)]) if {
	count(names) <= most_listed
}

listed(names) := sprintf("%s and %d more", [
	concat(", ", [short(name) | some name in array.slice(sort(names), 0, most_listed)]),
	count(names) - most_listed,
]) if {
	count(names) > most_listed
}

# A code as it is; what is none may be long.
short(name) := name if count(name) <= 8

short(name) := sprintf("%s...", [substring(name, 0, 8)]) if count(name) > 8

first(items) := array.slice(items, 0, most_named)

few(items) := array.slice(items, 0, most_strays)

# --- where everything could go

# Who restricts where the work may be, each with its set of jurisdictions: the tenant, datasets with
# a list, and personal data without one.
parties := array.concat(tenant_party, array.concat(listed_parties, personal_parties))

restricts_tenant if count(input.tenant.allowed_jurisdictions) > 0

tenant_party := [{
	"name": sprintf("tenant %s", [input.tenant.id]),
	"places": {jurisdiction | some jurisdiction in input.tenant.allowed_jurisdictions},
}] if {
	restricts_tenant
}

tenant_party := [] if not restricts_tenant

listed_parties := [party |
	some dataset in input.datasets
	count(dataset.jurisdictions) > 0
	party := {
		"name": sprintf("dataset %s", [dataset.id]),
		"places": {jurisdiction | some jurisdiction in dataset.jurisdictions},
	}
]

personal_parties := [party |
	some dataset in input.datasets
	dataset.personal
	count(dataset.jurisdictions) == 0
	party := {"name": sprintf("personal dataset %s", [dataset.id]), "places": adequate}
]

# Jurisdictions that satisfy the tenant and every dataset. Only read where something restricts.
places := intersection({party.places | some party in parties})

compute_hint := {"hint": sprintf("it could run in %s", [listed(places)])} if count(places) > 0

compute_hint := {} if count(places) == 0

write_hint := {"hint": sprintf("it could be written to %s", [listed(places)])} if count(places) > 0

write_hint := {} if count(places) == 0

send_hint := {"hint": sprintf("it could be sent to %s", [listed(places)])} if count(places) > 0

send_hint := {} if count(places) == 0

# --- compute

# METADATA
# title: A place that the tenant's contract excludes
# description: |
#   The cluster must stand in one of the tenant's jurisdictions, if the contract names any.
# custom:
#   code: RESIDENCY_TENANT
#   controls: ["ISO27001:A.5.23", "ISO27001:A.5.31"]
deny contains object.union(
	{
		"code": "RESIDENCY_TENANT",
		"message": sprintf(
			"cluster %s is in %s, but work of tenant %s may only run in %s",
			[input.cluster.id, place, input.tenant.id, listed(input.tenant.allowed_jurisdictions)],
		),
		"field": sprintf("%s.cluster_id", [kind]),
	},
	compute_hint,
) if {
	restricts_tenant
	not place in input.tenant.allowed_jurisdictions
}

data_misplaced := [dataset |
	some dataset in input.datasets
	count(dataset.jurisdictions) > 0
	not place in dataset.jurisdictions
]

# METADATA
# title: A place that the data excludes
# description: The cluster must stand in one of the jurisdictions of every dataset that names any.
# custom:
#   code: RESIDENCY_DATA
#   controls: ["ISO27001:A.5.34", "ISO27001:A.5.31"]
deny contains object.union(
	{
		"code": "RESIDENCY_DATA",
		"message": sprintf(
			"cluster %s is in %s, but dataset %s may only be processed in %s",
			[input.cluster.id, place, dataset.id, listed(dataset.jurisdictions)],
		),
		"field": sprintf("%s.cluster_id", [kind]),
	},
	compute_hint,
) if {
	some dataset in first(data_misplaced)
}

# --- checkpoints and egress

# Of places where results would go, those that are not for everybody: only these can be astray.
outside(asked) := [jurisdiction |
	count(parties) > 0
	some jurisdiction in asked
	not jurisdiction in places
]

written := outside(subject.checkpoint_jurisdictions)

sent := outside(subject.egress_jurisdictions)

# Of them, those that the tenant's contract excludes.
tenant_strays(asked) := [jurisdiction |
	restricts_tenant
	some jurisdiction in asked
	not jurisdiction in input.tenant.allowed_jurisdictions
]

# Those that data excludes, by dataset.
data_strays(asked) := [{"dataset": dataset, "jurisdictions": strays} |
	some dataset in input.datasets
	count(dataset.jurisdictions) > 0
	strays := [jurisdiction | some jurisdiction in asked; not jurisdiction in dataset.jurisdictions]
	count(strays) > 0
]

# Those in which personal data is not protected, by dataset.
personal_strays(asked) := [{"dataset": dataset, "jurisdictions": strays} |
	some dataset in input.datasets
	dataset.personal
	strays := [jurisdiction | some jurisdiction in asked; unprotected(dataset, jurisdiction)]
	count(strays) > 0
]

# METADATA
# title: Results where the tenant's contract excludes them
# description: Results are bound as the work is.
# custom:
#   code: RESIDENCY_CHECKPOINT
#   controls: ["ISO27001:A.5.23", "ISO27001:A.5.31"]
deny contains object.union(
	{
		"code": "RESIDENCY_CHECKPOINT",
		"message": sprintf(
			"results of tenant %s may not be written to %s, only to %s",
			[input.tenant.id, listed(strays), listed(input.tenant.allowed_jurisdictions)],
		),
		"field": sprintf("%s.checkpoint_jurisdictions", [kind]),
	},
	write_hint,
) if {
	strays := tenant_strays(written)
	count(strays) > 0
}

# METADATA
# title: Results where the data excludes them
# description: What is computed from a dataset stays where the dataset may be.
# custom:
#   code: RESIDENCY_CHECKPOINT
#   controls: ["ISO27001:A.5.34", "ISO27001:A.5.31"]
deny contains object.union(
	{
		"code": "RESIDENCY_CHECKPOINT",
		"message": sprintf(
			"results from dataset %s may not be written to %s, only to %s",
			[stray.dataset.id, listed(stray.jurisdictions), listed(stray.dataset.jurisdictions)],
		),
		"field": sprintf("%s.checkpoint_jurisdictions", [kind]),
	},
	write_hint,
) if {
	some stray in few(data_strays(written))
}

# METADATA
# title: Egress where the tenant's contract excludes it
# description: What is read out or sent is bound as the work is.
# custom:
#   code: RESIDENCY_EGRESS
#   controls: ["ISO27001:A.5.14", "ISO27001:A.5.23", "ISO27001:A.5.31"]
deny contains object.union(
	{
		"code": "RESIDENCY_EGRESS",
		"message": sprintf(
			"results of tenant %s may not be sent to %s, only to %s",
			[input.tenant.id, listed(strays), listed(input.tenant.allowed_jurisdictions)],
		),
		"field": sprintf("%s.egress_jurisdictions", [kind]),
	},
	send_hint,
) if {
	strays := tenant_strays(sent)
	count(strays) > 0
}

# METADATA
# title: Egress where the data excludes it
# description: What is computed from a dataset is sent only where the dataset may be.
# custom:
#   code: RESIDENCY_EGRESS
#   controls: ["ISO27001:A.5.14", "ISO27001:A.5.34", "ISO27001:A.5.31"]
deny contains object.union(
	{
		"code": "RESIDENCY_EGRESS",
		"message": sprintf(
			"results from dataset %s may not be sent to %s, only to %s",
			[stray.dataset.id, listed(stray.jurisdictions), listed(stray.dataset.jurisdictions)],
		),
		"field": sprintf("%s.egress_jurisdictions", [kind]),
	},
	send_hint,
) if {
	some stray in few(data_strays(sent))
}

# --- parties that exclude one another

# Looked for only where there is no place for all.
conflicts := [{"one": one, "other": other} |
	count(places) == 0
	some i, one in parties
	some j, other in parties
	i < j
	count(one.places & other.places) == 0
]

# METADATA
# title: Two without a common place
# description: |
#   Two datasets, or the tenant and a dataset, whose jurisdictions have nothing in common: what
#   needs both can run nowhere.
# custom:
#   code: RESIDENCY_CONFLICT
#   controls: ["ISO27001:A.5.34"]
deny contains {
	"code": "RESIDENCY_CONFLICT",
	"message": sprintf(
		"%s (only %s) and %s (only %s) may nowhere be processed together",
		[
			conflict.one.name, listed(conflict.one.places),
			conflict.other.name, listed(conflict.other.places),
		],
	),
	"field": sprintf("%s.dataset_ids", [kind]),
	"hint": "ask for each of them apart",
} if {
	some conflict in first(conflicts)
}

# METADATA
# title: Several without a common place
# description: |
#   Any two of them have a common place, but all of them have none.
# custom:
#   code: RESIDENCY_CONFLICT
#   controls: ["ISO27001:A.5.34"]
deny contains {
	"code": "RESIDENCY_CONFLICT",
	"message": sprintf("%s may nowhere be processed together", [concat(", ", named)]),
	"field": sprintf("%s.dataset_ids", [kind]),
	"hint": "ask for fewer of them together",
} if {
	count(parties) > 2
	count(places) == 0
	count(conflicts) == 0
}

named := array.concat(
	[name |
		count(places) == 0
		some party in first(parties)
		name := sprintf("%s (only %s)", [party.name, listed(party.places)])
	],
	[sprintf("%d more", [more]) | more := count(parties) - most_named; more > 0],
)

# --- personal data

# Not adequate, and not one of the dataset's own jurisdictions.
unprotected(dataset, jurisdiction) if {
	not jurisdiction in adequate
	not jurisdiction in dataset.jurisdictions
}

personal_misplaced := [dataset |
	some dataset in input.datasets
	dataset.personal
	unprotected(dataset, place)
]

# METADATA
# title: Personal data read where it is not protected
# description: Personal data is read in its own jurisdictions or where protection is adequate.
# custom:
#   code: RESIDENCY_PERSONAL
#   controls: ["SOC2:P6.1", "ISO27001:A.5.34"]
deny contains object.union(
	{
		"code": "RESIDENCY_PERSONAL",
		"message": sprintf(
			"dataset %s is personal, and protection in %s, where cluster %s stands, is not adequate",
			[dataset.id, place, input.cluster.id],
		),
		"field": sprintf("%s.cluster_id", [kind]),
	},
	compute_hint,
) if {
	some dataset in first(personal_misplaced)
}

# METADATA
# title: Personal data written where it is not protected
# description: Results from personal data are bound as the data is.
# custom:
#   code: RESIDENCY_PERSONAL
#   controls: ["SOC2:P6.1", "ISO27001:A.5.34"]
deny contains object.union(
	{
		"code": "RESIDENCY_PERSONAL",
		"message": sprintf(
			"dataset %s is personal, and protection in %s, where results go, is not adequate",
			[stray.dataset.id, listed(stray.jurisdictions)],
		),
		"field": sprintf("%s.checkpoint_jurisdictions", [kind]),
	},
	write_hint,
) if {
	some stray in few(personal_strays(written))
}

# METADATA
# title: Personal data sent where it is not protected
# description: What is sent out of personal data is bound as the data is.
# custom:
#   code: RESIDENCY_PERSONAL
#   controls: ["SOC2:P6.1", "ISO27001:A.5.14", "ISO27001:A.5.34"]
deny contains object.union(
	{
		"code": "RESIDENCY_PERSONAL",
		"message": sprintf(
			"dataset %s is personal, and protection in %s, where results are sent, is not adequate",
			[stray.dataset.id, listed(stray.jurisdictions)],
		),
		"field": sprintf("%s.egress_jurisdictions", [kind]),
	},
	send_hint,
) if {
	some stray in few(personal_strays(sent))
}

# --- places that there are not

# ISO 3166-1 alpha-2, as a text in which each code stands between bars: looked up, not built.
countries := `
|AD|AE|AF|AG|AI|AL|AM|AO|AQ|AR|AS|AT|AU|AW|AX|AZ|BA|BB|BD|BE|BF|BG|BH|BI|BJ|BL|BM|
|BN|BO|BQ|BR|BS|BT|BV|BW|BY|BZ|CA|CC|CD|CF|CG|CH|CI|CK|CL|CM|CN|CO|CR|CU|CV|CW|CX|
|CY|CZ|DE|DJ|DK|DM|DO|DZ|EC|EE|EG|EH|ER|ES|ET|FI|FJ|FK|FM|FO|FR|GA|GB|GD|GE|GF|GG|
|GH|GI|GL|GM|GN|GP|GQ|GR|GS|GT|GU|GW|GY|HK|HM|HN|HR|HT|HU|ID|IE|IL|IM|IN|IO|IQ|IR|
|IS|IT|JE|JM|JO|JP|KE|KG|KH|KI|KM|KN|KP|KR|KW|KY|KZ|LA|LB|LC|LI|LK|LR|LS|LT|LU|LV|
|LY|MA|MC|MD|ME|MF|MG|MH|MK|ML|MM|MN|MO|MP|MQ|MR|MS|MT|MU|MV|MW|MX|MY|MZ|NA|NC|NE|
|NF|NG|NI|NL|NO|NP|NR|NU|NZ|OM|PA|PE|PF|PG|PH|PK|PL|PM|PN|PR|PS|PT|PW|PY|QA|RE|RO|
|RS|RU|RW|SA|SB|SC|SD|SE|SG|SH|SI|SJ|SK|SL|SM|SN|SO|SR|SS|ST|SV|SX|SY|SZ|TC|TD|TF|
|TG|TH|TJ|TK|TL|TM|TN|TO|TR|TT|TV|TW|TZ|UA|UG|UM|US|UY|UZ|VA|VC|VE|VG|VI|VN|VU|WF|
|WS|YE|YT|ZA|ZM|ZW|
`

known(jurisdiction) if {
	count(jurisdiction) == 2
	contains(countries, sprintf("|%s|", [jurisdiction]))
}

known(jurisdiction) if jurisdiction in object.get(params, "more_jurisdictions", [])

unknown(asked) := [jurisdiction | some jurisdiction in asked; not known(jurisdiction)]

# METADATA
# title: Results for a place that there is not
# description: |
#   Only jurisdictions of ISO 3166-1, and those that the params add, are known. Others would be
#   compared with nothing.
# custom:
#   code: JURISDICTION_UNKNOWN
#   controls: ["ISO27001:A.5.31"]
deny contains {
	"code": "JURISDICTION_UNKNOWN",
	"message": sprintf(
		"there is no jurisdiction %s, where results are to be written",
		[listed(strange)],
	),
	"field": sprintf("%s.checkpoint_jurisdictions", [kind]),
	"hint": "write ISO 3166-1 alpha-2 codes, such as DE",
} if {
	strange := unknown(subject.checkpoint_jurisdictions)
	count(strange) > 0
}

# METADATA
# title: Egress to a place that there is not
# description: As for results.
# custom:
#   code: JURISDICTION_UNKNOWN
#   controls: ["ISO27001:A.5.31"]
deny contains {
	"code": "JURISDICTION_UNKNOWN",
	"message": sprintf("there is no jurisdiction %s, where results are to be sent", [
		listed(strange),
	]),
	"field": sprintf("%s.egress_jurisdictions", [kind]),
	"hint": "write ISO 3166-1 alpha-2 codes, such as DE",
} if {
	strange := unknown(subject.egress_jurisdictions)
	count(strange) > 0
}

# METADATA
# title: A cluster in a place that there is not
# description: Nobody can tell what holds there. The facts are to be mended.
# custom:
#   code: JURISDICTION_UNKNOWN
#   controls: ["ISO27001:A.5.31"]
deny contains {
	"code": "JURISDICTION_UNKNOWN",
	"message": sprintf("there is no jurisdiction %s, where cluster %s stands", [
		short(place),
		input.cluster.id,
	]),
	"field": sprintf("%s.cluster_id", [kind]),
	"hint": "have the cluster's jurisdiction in the facts mended, or ask in another cluster",
} if {
	not known(place)
}

# --- egress

# METADATA
# title: Results and traffic stay where they may be
# description: |
#   Where the tenant or data restrict it, the provisioner lets results and traffic out to these
#   jurisdictions alone: codes joined by commas, 64 in each param.
# custom:
#   obligation: residency.egress
#   controls: ["ISO27001:A.5.14", "ISO27001:A.5.34"]
obligations contains {"id": "residency.egress", "params": egress} if {
	object.get(params, "oblige_egress", true)
	count(parties) > 0
	count(places) > 0
}

codes_per_param := 64

egress := {name: codes |
	sorted := sort(places)
	some at, _ in sorted
	at % codes_per_param == 0
	name := egress_name(at)
	codes := concat(",", array.slice(sorted, at, at + codes_per_param))
}

egress_name(at) := "allow" if at == 0

egress_name(at) := sprintf("allow.%d", [(at / codes_per_param) + 1]) if at > 0

# --- params

# What no schema can tell; asked once, when the bundle is loaded. The schema knows the codes of ISO
# 3166-1 and those that ISO leaves to its users; of these only some are places here.
params_wrong(given) := {wrong |
	some at, code in given.adequate
	regex.match("^(AA|Q[M-Z]|X[A-Z]|ZZ)$", code)
	not code in object.get(given, "more_jurisdictions", [])
	wrong := {
		"path": sprintf("adequate[%d]", [at]),
		"message": sprintf("is %s, which is not in more_jurisdictions", [code]),
	}
}
