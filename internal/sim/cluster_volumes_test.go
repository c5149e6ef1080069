package sim_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
)

// disk is db with a volume.
func disk() sim.Pod {
	p := db()
	p.Volumes = true
	return p
}

// volumes are the attachments of both nodes, and what the nodes themselves say.
func volumes(t *testing.T, c *sim.Cluster) string {
	t.Helper()
	var all []string
	for _, node := range []string{"a", "b"} {
		names, err := c.Attachments(t.Context(), node)
		must(t, err)
		s := fmt.Sprint(node, " ", len(names))
		if n, ok := c.Node(node); ok {
			s += fmt.Sprint("/", len(n.Attached))
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

// TestHowLongAStatefulSetsPodWithAVolumeIsMissing is a real control plane's table, in its order if not in its seconds.
func TestHowLongAStatefulSetsPodWithAVolumeIsMissing(t *testing.T) {
	const wait = 90 * second
	for _, test := range []struct {
		name string
		do   func(t *testing.T, c *sim.Cluster, p spot.Pod, at func() time.Duration)
		back time.Duration // when the next one is Ready
	}{
		{"evicted", func(t *testing.T, c *sim.Cluster, p spot.Pod, _ func() time.Duration) {
			must(t, c.Evict(t.Context(), p, 30*second, false))
		}, 2 * second},
		{"without power, tainted, waited for, deleted", func(t *testing.T, c *sim.Cluster, p spot.Pod, at func() time.Duration) {
			c.PowerOff("a")
			outOfService(c, "a", "NoExecute")
			until(at, 250*ms)
			must(t, c.Delete(t.Context(), p, 0, false))
		}, 2 * second},
		{"without power, tainted", func(_ *testing.T, c *sim.Cluster, _ spot.Pod, _ func() time.Duration) {
			c.PowerOff("a")
			outOfService(c, "a", "NoExecute")
		}, 62 * second},
		{"without power, deleted", func(t *testing.T, c *sim.Cluster, p spot.Pod, _ func() time.Duration) {
			c.PowerOff("a")
			must(t, c.Delete(t.Context(), p, 0, false))
		}, wait + 2*second},
		{"without power, its Node deleted", func(t *testing.T, c *sim.Cluster, _ spot.Pod, _ func() time.Duration) {
			c.PowerOff("a")
			n, _ := c.Node("a")
			must(t, c.DeleteNode(t.Context(), n))
		}, time.Minute + wait + 2*second},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
				c.ForceDetachAfter(wait)
				p := disk()
				p.Exit = 500 * ms
				old := c.AddPod(p)
				want(t, "at first", volumes(t, c), "a 1/1, b 0/0")
				test.do(t, c, old, at)

				until(at, test.back-1500*ms)
				if p, ok := c.Pod("default/db-0"); ok && p.UID != old.UID && !p.Pending {
					t.Errorf("the next pod is Ready after %s", at())
				}
				until(at, test.back)
				want(t, "pods", names(c), "db-0@b")
				if got := volumes(t, c); !strings.HasSuffix(got, "b 1/1") || strings.HasPrefix(got, "a 1") {
					t.Errorf("at last: got %s; want the volume on b", got)
				}
			})
		})
	}
}

func TestAVolumeIsOnOneNodeAtATime(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		old := disk()
		old.Owner.Kind, old.Exit = "ReplicaSet", 5*second
		must(t, c.Evict(t.Context(), c.AddPod(old), 30*second, false))
		until(at, 4*second)
		want(t, "its successor has another name, and waits for the volume", names(c), "db-0@a terminating, db-0004@b pending")
		want(t, "volumes", volumes(t, c), "a 1/1, b 0/0")
		until(at, 5*second)
		want(t, "when it has left, it is no longer safe to use", volumes(t, c), "a 1/0, b 0/0")
		until(at, 5500*ms)
		want(t, "then it is attached", volumes(t, c), "a 0/0, b 1/0")
		until(at, 5799*ms)
		want(t, "the successor still waits", names(c), "db-0004@b pending")
		until(at, 5800*ms)
		want(t, "and starts", names(c), "db-0004@b")
		want(t, "volumes", volumes(t, c), "a 0/0, b 1/1")
	})
}

func TestAKubeletThatComesBackLetsGo(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.PowerOff("a")
		must(t, c.Delete(t.Context(), c.AddPod(disk()), 0, false))
		c.PowerOn("a")
		c.PowerOff("a")
		until(at, 2*second)
		want(t, "it has let go before power was cut again", volumes(t, c), "a 0/0, b 1/1")
		p, _ := c.Pod("default/db-0")
		want(t, "and the next pod runs", p.Pending, false)
		c.PowerOff("b")
		must(t, c.Delete(t.Context(), p.Pod, 0, false))
		until(at, 5*time.Minute)
		want(t, "off", volumes(t, c), "a 0/0, b 1/1")
		c.PowerOn("b")
		until(at, 5*time.Minute+second)
		want(t, "on", volumes(t, c), "a 0/0, b 1/1") // attached anew, for the next pod
		p, _ = c.Pod("default/db-0")
		want(t, "and the one after that runs", p.Pending, false)
	})
}

// TestWhoLetsGoOfAVolume: a kubelet, of what no pod that runs needs, as long as there is a Node on which to say so.
func TestWhoLetsGoOfAVolume(t *testing.T) {
	data := func(node string) sim.Pod {
		return sim.Pod{Node: node, Pod: spot.Pod{Name: "pod-" + node, Volumes: true}, Volume: "data"}
	}
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddPod(data("a"))
		c.ChangePod("default/pod-a", func(p *sim.Pod) { p.Finished = true })
		until(at, second)
		want(t, "a pod that has finished needs none", volumes(t, c), "a 0/0, b 0/0")
	})
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := data("a")
		p.Pending = true
		c.PowerOff("a")
		c.AddPod(p)
		until(at, second)
		want(t, "a pod that waits for it", volumes(t, c), "a 1/1, b 0/0")
		c.RemovePod("default/pod-a")
		until(at, 2*second)
		want(t, "a kubelet without power has never used it", volumes(t, c), "a 0/0, b 0/0")
	})
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddPod(data("a"))
		c.RemoveNode("a")
		c.RemovePod("default/pod-a")
		until(at, 6*time.Minute)
		want(t, "a kubelet without a Node cannot say so", volumes(t, c), "a 1, b 0/0")
		until(at, 6*time.Minute+second)
		want(t, "and is waited for no longer than one without power", volumes(t, c), "a 0, b 0/0")
	})
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddPod(data("a"))
		c.PowerOff("a")
		c.RemovePod("default/pod-a")
		until(at, 5*time.Minute)
		c.AddPod(data("a"))
		until(at, 10*time.Minute)
		c.RemovePod("default/pod-a")
		until(at, 15*time.Minute)
		want(t, "the wait begins with the end of the last pod", volumes(t, c), "a 1/1, b 0/0")
		until(at, 16*time.Minute+second)
		want(t, "and is over", volumes(t, c), "a 0/0, b 0/0")
	})
}

func TestPodsThatShareAVolume(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		var pods []spot.Pod
		for _, name := range []string{"one", "two"} {
			pods = append(pods, c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: name, Volumes: true}, Volume: "shared"}))
		}
		want(t, "both", volumes(t, c), "a 1/1, b 0/0")
		must(t, c.Evict(t.Context(), pods[0], second, false))
		until(at, 5*second)
		want(t, "one of them", volumes(t, c), "a 1/1, b 0/0")
		must(t, c.Evict(t.Context(), pods[1], second, false))
		until(at, 10*second)
		want(t, "none", volumes(t, c), "a 0/0, b 0/0")
	})
}

func TestAttachmentsHaveNames(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		for _, name := range []string{"one", "two"} {
			c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: name, Volumes: true}})
		}
		names, err := c.Attachments(t.Context(), "a")
		must(t, err)
		if !slices.Equal(names, []string{"csi-default-one-a", "csi-default-two-a"}) {
			t.Errorf("got %q", names)
		}
		n, _ := c.Node("a")
		if !slices.Equal(n.Attached, []string{"kubernetes.io/csi/ebs.csi.aws.com^vol-default-one", "kubernetes.io/csi/ebs.csi.aws.com^vol-default-two"}) {
			t.Errorf("got %q", n.Attached)
		}
	})
}
