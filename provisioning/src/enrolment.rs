//! Enrolment files.
