// Package install deploys the function into a cluster's account, and takes it away: the SAM template as a CloudFormation
// stack, its code in a bucket of the account's own. Like onboarding it is in four parts: what there is, what is to be changed,
// the change, and a check, which is package chain's.
package install
