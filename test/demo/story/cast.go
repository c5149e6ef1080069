package story

import (
	"strings"
	"time"
)

// FirstBuild is the measured duration of the first build on two idle cores. README.md states the same number.
const FirstBuild = "12 minutes"

// The cluster shown by the demo.
const (
	Cluster = "prod.example.com"
	Region  = "us-east-1"

	LaunchTime = 3 * time.Second // from pending to running; about 10 s on EC2
	BootTime   = 2 * time.Second // from running to a registered node; about a minute with kOps

	PinnedGroup = "spot-us-east-1a" // the instance group of payments and orders-db
)

// Group is a kOps instance group with its initial instances. Every group is at its maximum size, so it can only launch
// an instance after it has detached one.
type Group struct {
	Name, Zone string
	Members    []Member
}

// Member is an instance of a group. The cluster is in the middle of a kOps upgrade: the nodes of old instances are
// named after the private DNS name, those of new instances after the instance ID.
type Member struct {
	ID, IP string
	Old    bool
}

// Groups lists all instance groups.
var Groups = []Group{
	{"nodes-us-east-1a", "us-east-1a", []Member{
		{"i-0d1f3a7c92b84e605", "172.20.32.11", true}, {"i-07c2e95b1a4d8f360", "172.20.32.12", false}}},
	{"nodes-us-east-1b", "us-east-1b", []Member{
		{"i-03b8d6f0e2719ac54", "172.20.64.21", true}, {"i-0f64a1c8b37d2e590", "172.20.64.22", false}}},
	{PinnedGroup, "us-east-1a", []Member{
		{"i-0a95e7d3c1f04b826", "172.20.32.31", true}, {"i-04e2b8f7160d9c3a5", "172.20.32.32", false}}},
}

// ASG returns the name of the Auto Scaling group.
func (g Group) ASG() string { return g.Name + "." + Cluster }

// Node returns the name of the instance's node.
func (m Member) Node() string {
	if m.Old {
		return "ip-" + strings.ReplaceAll(m.IP, ".", "-") + ".ec2.internal"
	}
	return m.ID
}

// App is a workload. Ready and Exit are the time from start to Ready and from SIGTERM to exit.
type App struct {
	Name        string
	Replicas    int // 0 for a DaemonSet
	Ready, Exit time.Duration
	Grace       int64 // seconds
}

// The workloads. The first three are spread evenly over all nodes. The others run only in the pinned group, so that the
// busiest node is one of its two.
var (
	Web      = App{"web", 12, 1500 * time.Millisecond, 1500 * time.Millisecond, 30}
	API      = App{"api", 6, 2 * time.Second, 3 * time.Second, 30}
	Worker   = App{"worker", 6, time.Second, 5 * time.Second, 60}
	Payments = App{"payments", 4, 3 * time.Second, time.Second, 30}
	OrdersDB = App{"orders-db", 2, 1500 * time.Millisecond, 2 * time.Second, 60}

	Apps = []App{Web, API, Worker, Payments, OrdersDB}
)
