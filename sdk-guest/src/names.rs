//! The contract's names of enum values: as they stand in JSON, Rego and parameters.

use crate::{
    Classification, FabricKind, IsolationLevel, ModelUse, PartitionMode, PriorityClass, TenantKind,
};

macro_rules! names {
    ($type:ident { $($value:ident = $name:literal),* $(,)? }) => {
        impl $type {
            /// Every value, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$value),*];

            /// Its name in JSON, Rego and parameters.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name),*
                }
            }

            /// The value of that name, if there is one.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$value),)*
                    _ => None,
                }
            }
        }
    };
}

names!(IsolationLevel {
    Shared = "SHARED",
    Partitioned = "PARTITIONED",
    Passthrough = "PASSTHROUGH",
    Dedicated = "DEDICATED",
    Confidential = "CONFIDENTIAL",
});

names!(Classification {
    Public = "PUBLIC",
    Internal = "INTERNAL",
    Confidential = "CONFIDENTIAL",
    Restricted = "RESTRICTED",
});

names!(PriorityClass {
    InternalResearch = "INTERNAL_RESEARCH",
    ExternalCommercial = "EXTERNAL_COMMERCIAL",
});

names!(ModelUse {
    Training = "TRAINING",
    FineTuning = "FINE_TUNING",
    Inference = "INFERENCE",
    Evaluation = "EVALUATION",
});

names!(FabricKind { Ethernet = "ETHERNET", Roce = "ROCE", Infiniband = "INFINIBAND" });

names!(PartitionMode { Mig = "MIG", Sriov = "SRIOV" });

names!(TenantKind { Own = "OWN", Customer = "CUSTOMER" });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_ordered_as_the_contract_declares_them() {
        assert!(IsolationLevel::ALL.is_sorted() && Classification::ALL.is_sorted());
        assert!(IsolationLevel::Shared < IsolationLevel::Confidential);
        assert!(Classification::Public < Classification::Restricted);
    }

    #[test]
    fn a_name_leads_back_to_its_value() {
        for level in IsolationLevel::ALL {
            assert_eq!(IsolationLevel::from_name(level.name()), Some(*level));
        }
        for unknown in ["", "shared", "SHARED ", "ISOLATION_LEVEL_UNSPECIFIED"] {
            assert_eq!(IsolationLevel::from_name(unknown), None, "{unknown:?}");
        }
    }
}
