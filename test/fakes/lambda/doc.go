// Package lambda is Lambda for what AWS's runtime interface emulator lacks: several invocations at once, function
// errors, asynchronous events with their retries and destinations, the freeze between invocations and the loss of a host
// in the middle of one. It runs real bootstrap binaries, built for provided.al2023.
//
//	caller --Invoke API--> Service --Runtime API--> bootstrap process
//	                          |
//	                          +--asynchronous events: retries, destinations
//
// It follows the AWS Lambda Developer Guide and API reference. Not modelled is what no test of this project asserts,
// such as signatures, versions, the limits of sizes, a second try at a failed init, limits of concurrency, and the age of events.
// Nothing but a process group of its own confines a function. Linux only, as Lambda is.
package lambda
