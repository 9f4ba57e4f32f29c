# What cases cannot show: the words of a denial, and params that are made up here. `placet test` runs
# every rule `test_...`.
package placet.@package@_test

import rego.v1

import data.placet.@package@ as policy

sold_lease(seconds) := {
	"priority_class": "EXTERNAL_COMMERCIAL",
	"lease": {"duration_seconds": seconds},
}

limits := {"max_duration_seconds": {"EXTERNAL_COMMERCIAL": 100}}

refuses(codes) if codes == {denial.code | some denial in policy.deny}

test_the_maximum_itself_is_permitted if {
	refuses(set()) with input as sold_lease(100) with data.params as limits
}

test_a_denial_names_the_field_that_is_wrong if {
	fields := {denial.field | some denial in policy.deny} with input as sold_lease(101)
		with data.params as limits
	fields == {"lease.duration_seconds"}
}
