//! What labels are printed on: sheets that shops sell, or one label after the other.

use std::str::FromStr;

/// Where labels stand on a page, in millimetres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sheet {
    /// The page.
    pub page: (f32, f32),
    /// One label.
    pub label: (f32, f32),
    /// The first label's corner.
    pub margin: (f32, f32),
    /// From one label's corner to the next one's.
    pub step: (f32, f32),
    /// Columns and rows.
    pub grid: (usize, usize),
}

const A4: (f32, f32) = (210.0, 297.0);
const LETTER: (f32, f32) = (215.9, 279.4);

/// The sheets that have names.
pub const SHEETS: [(&str, Sheet); 4] = [
    // 70 × 37 mm without gaps.
    ("a4-24", Sheet { page: A4, label: (70.0, 37.0), margin: (0.0, 0.5), step: (70.0, 37.0), grid: (3, 8) }),
    // 63.5 × 33.9 mm, rounded corners, for durable foil.
    ("a4-24-foil", Sheet { page: A4, label: (63.5, 33.9), margin: (7.2, 12.9), step: (66.0, 33.9), grid: (3, 8) }),
    // 48.5 × 25.4 mm.
    ("a4-40", Sheet { page: A4, label: (48.5, 25.4), margin: (8.0, 21.5), step: (48.5, 25.4), grid: (4, 10) }),
    // 2⅝ × 1 inch.
    (
        "letter-30",
        Sheet { page: LETTER, label: (66.675, 25.4), margin: (4.76, 12.7), step: (69.85, 25.4), grid: (3, 10) },
    ),
];

/// A text that names no sheet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no sheet of labels: say {names}, or the size of one label as 62x29 (mm)")]
pub struct BadSheet {
    text: String,
    names: String,
}

impl Sheet {
    /// How many labels a page has.
    pub fn labels_on_page(&self) -> usize {
        self.grid.0 * self.grid.1
    }

    /// The corner of a page's label, by its number on that page.
    pub fn corner(&self, number: usize) -> (f32, f32) {
        let (column, row) = (number % self.grid.0, number / self.grid.0);
        (self.margin.0 + column as f32 * self.step.0, self.margin.1 + row as f32 * self.step.1)
    }
}

impl FromStr for Sheet {
    type Err = BadSheet;

    fn from_str(text: &str) -> Result<Self, BadSheet> {
        if let Some((_, sheet)) = SHEETS.iter().find(|(name, _)| *name == text) {
            return Ok(*sheet);
        }
        let bad = || {
            let names: Vec<&str> = SHEETS.iter().map(|(name, _)| *name).collect();
            BadSheet { text: text.chars().take(40).collect(), names: names.join(", ") }
        };
        let size = |text: &str| text.trim().parse::<f32>().ok().filter(|size| (8.0..=400.0).contains(size));
        let (width, height) =
            text.split_once('x').and_then(|(width, height)| size(width).zip(size(height))).ok_or_else(bad)?;
        let label = (width, height);
        Ok(Self { page: label, label, margin: (0.0, 0.0), step: label, grid: (1, 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_lies_on_its_page() {
        let own: Sheet = "62x29".parse().expect("a size");
        assert_eq!((own.page, own.labels_on_page()), ((62.0, 29.0), 1));
        for (name, sheet) in SHEETS {
            assert_eq!(name.parse(), Ok(sheet));
            let (right, bottom) = sheet.corner(sheet.labels_on_page() - 1);
            assert!(right + sheet.label.0 <= sheet.page.0 + 0.01, "{name}");
            assert!(bottom + sheet.label.1 <= sheet.page.1 + 0.01, "{name}");
            assert!(sheet.step.0 >= sheet.label.0 && sheet.step.1 >= sheet.label.1, "{name}");
        }
    }

    #[test]
    fn what_is_no_sheet_is_told() {
        for text in ["", "a5", "x", "0x5", "5x", "nanx9", "10x-3", "1e9x10"] {
            let told = text.parse::<Sheet>().expect_err(text).to_string();
            assert!(told.contains("a4-24, a4-24-foil, a4-40, letter-30"), "{told}");
        }
    }
}
