//! Tables of one rollout.
