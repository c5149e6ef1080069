// Package aws implements spot.Cloud with EC2 and EC2 Auto Scaling.
//
// A method makes one attempt, bounded in time: the SDK's retries are disabled because the handler retries by its own
// deadline. Errors are translated to spot.ErrNotFound, or to spot.ErrPermanent with what to do. All others are retryable.
package aws
