# METADATA
# title: Data residency
# description: |
#   Work runs, and its results are written, only where the tenant's contract and every dataset allow
#   it. Jurisdictions are sets: an empty list allows any place, several lists allow what is in all
#   of them. Personal data without a list of its own goes only where its protection is adequate.
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

# Reasons name at most so many datasets, and lists at most so many entries: the answer stays within
# the engine's bounds.
most_named := 4

most_listed := 16

listed(names) := concat(", ", sort(names)) if count(names) <= most_listed

listed(names) := sprintf("%s and %d more", [
	concat(", ", array.slice(sort(names), 0, most_listed)),
	count(names) - most_listed,
]) if {
	count(names) > most_listed
}

first(items) := array.slice(items, 0, most_named)

# --- where everything could go

restricts_tenant if count(input.tenant.allowed_jurisdictions) > 0

restrictions contains {jurisdiction | some jurisdiction in input.tenant.allowed_jurisdictions} if {
	restricts_tenant
}

restrictions contains {jurisdiction | some jurisdiction in dataset.jurisdictions} if {
	some dataset in input.datasets
	count(dataset.jurisdictions) > 0
}

restrictions contains adequate if {
	some dataset in input.datasets
	dataset.personal
	count(dataset.jurisdictions) == 0
}

# Jurisdictions that satisfy the tenant and every dataset. Only read where something restricts.
places := intersection(restrictions)

compute_hint := {"hint": sprintf("it could run in %s", [listed(places)])} if count(places) > 0

compute_hint := {} if count(places) == 0

write_hint := {"hint": sprintf("it could be written to %s", [listed(places)])} if count(places) > 0

write_hint := {} if count(places) == 0

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

# --- checkpoints

tenant_strays := [jurisdiction |
	restricts_tenant
	some jurisdiction in subject.checkpoint_jurisdictions
	not jurisdiction in input.tenant.allowed_jurisdictions
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
			[
				input.tenant.id, listed(tenant_strays),
				listed(input.tenant.allowed_jurisdictions),
			],
		),
		"field": sprintf("%s.checkpoint_jurisdictions", [kind]),
	},
	write_hint,
) if {
	count(tenant_strays) > 0
}

data_strays := [{"dataset": dataset, "jurisdictions": strays} |
	some dataset in input.datasets
	count(dataset.jurisdictions) > 0
	strays := [jurisdiction |
		some jurisdiction in subject.checkpoint_jurisdictions
		not jurisdiction in dataset.jurisdictions
	]
	count(strays) > 0
]

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
	some stray in first(data_strays)
}

# --- datasets that exclude one another

restricted := [{"dataset": dataset, "places": {place_of | some place_of in dataset.jurisdictions}} |
	some dataset in input.datasets
	count(dataset.jurisdictions) > 0
]

conflicts := [{"one": one.dataset, "other": other.dataset} |
	some i, one in restricted
	some j, other in restricted
	i < j
	count(one.places & other.places) == 0
]

# METADATA
# title: Datasets without a common place
# description: Two datasets whose jurisdictions have nothing in common can nowhere be read together.
# custom:
#   code: RESIDENCY_CONFLICT
#   controls: ["ISO27001:A.5.34"]
deny contains {
	"code": "RESIDENCY_CONFLICT",
	"message": sprintf(
		"datasets %s (only %s) and %s (only %s) may nowhere be processed together",
		[
			conflict.one.id, listed(conflict.one.jurisdictions),
			conflict.other.id, listed(conflict.other.jurisdictions),
		],
	),
	"field": sprintf("%s.dataset_ids", [kind]),
	"hint": "ask for each of them apart",
} if {
	some conflict in first(conflicts)
}

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

personal_strays := [{"dataset": dataset, "jurisdictions": strays} |
	some dataset in input.datasets
	dataset.personal
	strays := [jurisdiction |
		some jurisdiction in subject.checkpoint_jurisdictions
		unprotected(dataset, jurisdiction)
	]
	count(strays) > 0
]

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
	some stray in first(personal_strays)
}
