package iam_test

import (
	"slices"
	"testing"

	"github.com/castai/kops-spot/iam"
)

func TestResourcesCannotBeTaggedIntoTheCluster(t *testing.T) {
	t.Parallel()
	d := asUser()
	_, other, untagged, neighbour := someThings()
	for name, th := range map[string]thing{"another's": other, "no cluster's": untagged, "a neighbour's": neighbour} {
		for _, k := range []kind{anInstance, aVolume, anInterface, aSecurityGroup, aKeyPair, aSubnet} {
			for key, value := range map[string]string{
				"KubernetesCluster": "prod.example.com", "kubernetescluster": "prod.example.com",
				"kubernetes.io/cluster/prod.example.com": "owned", "cast:cluster": "prod.example.com", "Name": "mine",
			} {
				tags := with(facts{"aws:TagKeys": []string{key}, "aws:RequestTag/" + key: value})(th)
				d.add("tagging "+name+" "+k.name+" with "+key, d.actor.does("ec2:CreateTags", k.arn(th), tags))
				d.add("untagging "+name+" "+k.name+" of "+key, d.actor.does("ec2:DeleteTags", k.arn(th), tags))
			}
		}
	}
	prove(t, d.calls)
}

func TestScopingTagsCannotBeChanged(t *testing.T) {
	t.Parallel()
	d := asUser()
	own, _, _, _ := someThings()
	for _, k := range []kind{anInstance, aVolume, anInterface, aSecurityGroup, aKeyPair} {
		for key, value := range map[string]string{
			"KubernetesCluster": "staging.example.com", "kubernetescluster": "staging.example.com",
			"kubernetes.io/cluster/staging.example.com": "owned", "kubernetes.io/cluster/prod.example.com": "shared",
			"cast:interrupted-at": "2026-11-02T12:00:00Z", "cast:managed-by": "me",
		} {
			tags := with(facts{"aws:TagKeys": []string{"team", key}, "aws:RequestTag/" + key: value})(own)
			d.add("tagging its own "+k.name+" with "+key, d.actor.does("ec2:CreateTags", k.arn(own), tags))
			if key != "kubernetescluster" { // EC2's tag keys are case-sensitive: this one scopes nothing
				d.add("untagging its own "+k.name+" of "+key, d.actor.does("ec2:DeleteTags", k.arn(own), tags))
			}
		}
		d.add("untagging its own "+k.name+" of everything", d.actor.does("ec2:DeleteTags", k.arn(own), own.facts()))
	}
	prove(t, d.calls)
}

// TestUserWithoutTagsCreatesNothing: without the user's tags, the managed policy allows nothing.
func TestUserWithoutTagsCreatesNothing(t *testing.T) {
	t.Parallel()
	user := userOf(clusterA)
	user.documents, user.facts = user.ours(iam.ManagedPolicy), facts{}
	d := &denials{actor: user}
	own := thingOf(clusterA)
	inNoClusters := []string{anImage.arn(own), aSnapshot.arn(own), aNewVolume.arn(own), aNewSpotRequest.arn(own)}
	for _, r := range userRows {
		of := r.facts
		if of == nil {
			of = thing.facts
		}
		if !slices.Contains(inNoClusters, r.on.arn(own)) {
			d.never(r.on.arn(own), of(own), r.actions...)
		}
	}
	d.add("launching", launchOf(clusterA).by(user)...)
	prove(t, d.calls)
}
