// Package onboard gives CAST AI and the function the rights that they need on one cluster, in its AWS account and in the
// cluster itself, and takes them away again. Everything is in four parts: to inspect what there is, to decide what to change,
// which is pure, to apply that, and to check. docs/onboarding.md says what is made, and in which order.
package onboard
