use super::*;

#[test]
fn a_panic_is_no_decision_and_no_end() {
    let panicked = guarded::<()>(|| panic!("as a bug would"));
    assert!(matches!(panicked, Err(WorkError::Panicked)));
    assert!(matches!(guarded(|| Ok(1)), Ok(1)));
}
