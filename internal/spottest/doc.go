// Package spottest is an in-memory AWS account (EC2 instances and Auto Scaling groups) and Kubernetes cluster for fast
// tests and the demo. Both are stateful: later responses reflect earlier requests.
//
// It uses the time package only, so hours pass at once in a testing/synctest bubble. Tests set up a world, inject
// faults and inspect the log of requests. A mistake in a test, such as an unknown name, panics.
package spottest
