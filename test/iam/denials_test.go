package iam_test

const admin = "arn:aws:iam::" + account + ":role/Admin"

// denials are calls that must be denied for every actor.
type denials struct {
	actor actor
	calls []call
}

func (d *denials) add(name string, requests ...request) {
	d.calls = append(d.calls, call{d.actor.name + ": " + name, requests, false})
}

// never adds one denied call for each action on the same resource.
func (d *denials) never(resource string, f facts, actions ...string) {
	for _, action := range actions {
		d.add(action+" on "+resource, d.actor.does(action, resource, f))
	}
}

func asUser() *denials { return &denials{actor: userOf(clusterA)} }

// someThings are the cluster's own resource, another cluster's, one without a cluster, and another's in the cluster's
// VPC.
func someThings() (own, other, untagged, neighbour thing) {
	own, other = thingOf(clusterA), thingOf(clusterB)
	untagged, neighbour = own, other
	untagged.tag, neighbour.vpc = "", own.vpc
	return
}
