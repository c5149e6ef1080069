// Package spottest is one small world in memory for fast tests and the demo: an AWS account with its EC2 instances and Auto
// Scaling groups, and a Kubernetes cluster. Each half is stateful: what is asked of it shows in what it answers next.
//
// Time is the time package's, so in a testing/synctest bubble hours pass in no time. Tests set a world up, let it fail
// where they like, and read from its log what was asked of it and what was not. A test's own mistake, such as a name
// that does not exist, panics.
package spottest
