//! Words about a fleet that several commands share. Each function takes a view of the API and gives
//! text, so that `get`, `describe`, `explain` and `rollout` say the same of the same thing.

pub mod device;
pub mod figures;
pub mod hardware;
pub mod replicas;
pub mod rollout;

/// Names that a cell or a sentence lists; the rest are counted.
const NAMES_LISTED_MAX: usize = 5;

/// Names with commas between them, cut short: `edge-1, edge-2 and 7 more`.
pub fn names<N: std::fmt::Display>(names: &[N]) -> String {
    let listed: Vec<String> = names.iter().take(NAMES_LISTED_MAX).map(N::to_string).collect();
    let listed = listed.join(", ");
    match names.len().saturating_sub(NAMES_LISTED_MAX) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

/// `1 replica`, `3 replicas`.
pub fn count(number: u32, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut_and_counted() {
        assert_eq!(names::<&str>(&[]), "");
        assert_eq!(names(&["edge-1", "edge-2"]), "edge-1, edge-2");
        assert_eq!(names(&[1, 2, 3, 4, 5, 6, 7]), "1, 2, 3, 4, 5 and 2 more");
        assert_eq!([0, 1, 2].map(|number| count(number, "replica")), ["0 replicas", "1 replica", "2 replicas"]);
    }
}
