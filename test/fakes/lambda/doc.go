// Package lambda adds what AWS's runtime interface emulator lacks: concurrent invocations, function errors,
// asynchronous events with retries and destinations, the freeze between invocations and the loss of a host. It runs
// real bootstrap binaries, built for provided.al2023.
//
//	caller --Invoke API--> Service --Runtime API--> bootstrap process
//	                          |
//	                          +--asynchronous events: retries, destinations
//
// It follows the AWS Lambda Developer Guide and API reference. It leaves out what no test asserts, such as signatures,
// versions, size limits, a second init, concurrency limits and the maximum event age. A function is confined only by
// its process group. Linux only, like Lambda.
package lambda
