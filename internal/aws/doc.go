// Package aws is EC2 and EC2 Auto Scaling behind spot.Cloud and its relatives.
//
// A method asks once: the SDK's own retries are off, because the handler tries again by its own clock, and one attempt is
// bounded in time, so that a connection that swallows everything leaves time for another. Errors are translated here
// and nowhere else: ErrNotFound, ErrFinal with what to do about it, and all others, which are worth another try.
package aws
