// Package spot decides what to do when an EC2 instance is interrupted, and reports the result:
//
//	Interruption --handler.locate--> Target --Policy.Plan--> Plan --handler--> Outcome
//
// All decisions are pure functions: no goroutines, no I/O, the standard library only. Package handler carries them out.
package spot
