// Package spot is the domain: what an interruption of an EC2 instance means for the Kubernetes node behind it, what to
// do in the time that is left, and what is told about it afterwards.
//
// One way leads through it:
//
//	Interruption --locate--> Target --Policy.Plan--> Plan --carry out--> Outcome
//
// Policy.Plan and the methods of Plan decide, purely; Handler asks the world (Cluster, Cloud) and acts on it. The package
// knows neither AWS nor Kubernetes clients and imports the standard library only.
package spot
