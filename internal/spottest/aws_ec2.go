package spottest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

// Instance is an EC2 instance.
type Instance struct {
	ID             string // generated if empty
	State          string // pending, running, stopping, stopped, shutting-down, terminated; running if empty
	PrivateDNSName string // derived from IP address and region if empty
	PrivateIP      string // generated if empty
	Type           string // m5.large if empty
	Zone           string // the region's zone a if empty
	Spot           bool
	Hibernates     bool // launched with hibernation configured
	Tags           map[string]string
}

func (i *Instance) clone() Instance {
	c := *i
	c.Tags = maps.Clone(i.Tags)
	return c
}

// groupTag is the tag in which EC2 shows the group of an instance. "When you detach an instance from an Auto Scaling
// group, it removes only the aws:autoscaling:groupName tag" (Auto Scaling user guide, tagging lifecycle). Here the tag
// is removed when detaching completes (unverified).
const groupTag = "aws:autoscaling:groupName"

// AddInstance adds an instance outside any group and returns it with all defaults set.
func (a *AWS) AddInstance(i Instance) Instance {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.addInstance(i).clone()
}

func (a *AWS) addInstance(i Instance) *Instance {
	a.serial++
	if i.ID == "" {
		i.ID = fmt.Sprintf("i-%017x", a.firstID+a.serial)
	}
	awsRequire(a.instances[i.ID] == nil, "there is an instance %s already", i.ID)
	if i.State == "" {
		i.State = "running"
	}
	mustBeState(i.State)
	if i.PrivateIP == "" {
		i.PrivateIP = fmt.Sprintf("172.20.%d.%d", a.serial/250, a.serial%250+4)
	}
	if i.PrivateDNSName == "" {
		i.PrivateDNSName = privateDNSName(i.PrivateIP, a.region)
	}
	i.Type = cmp.Or(i.Type, "m5.large")
	if i.Zone == "" {
		i.Zone = a.region + "a"
	}
	i.Tags = maps.Clone(i.Tags)
	if i.Tags == nil {
		i.Tags = map[string]string{}
	}
	a.instances[i.ID] = &i
	return &i
}

// privateDNSName returns the default private DNS name. us-east-1 has its own domain.
func privateDNSName(ip, region string) string {
	domain := region + ".compute.internal"
	if region == "us-east-1" {
		domain = "ec2.internal"
	}
	return "ip-" + strings.ReplaceAll(ip, ".", "-") + "." + domain
}

// Instance returns an instance. It is not a call: no faults apply, and it is not logged.
func (a *AWS) Instance(id string) (Instance, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i, ok := a.instances[id]
	if !ok {
		return Instance{}, false
	}
	return i.clone(), true
}

func (a *AWS) mustInstance(id string) *Instance {
	i := a.instances[id]
	awsRequire(i != nil, "there is no instance %q", id)
	return i
}

// Filter is a filter of DescribeInstances: instance-id or tag:<key>, matching any of the values.
type Filter struct {
	Name   string
	Values []string
}

const (
	filterID  = "instance-id"
	filterTag = "tag:"
)

func (f Filter) passes(i *Instance) bool {
	if f.Name == filterID {
		return slices.Contains(f.Values, i.ID)
	}
	v, ok := i.Tags[strings.TrimPrefix(f.Name, filterTag)]
	return ok && slices.Contains(f.Values, v)
}

// DescribeInstances returns the instances with these IDs, or all, that match all filters. One unknown ID fails the
// call; unknown values of the instance-id filter do not.
func (a *AWS) DescribeInstances(ctx context.Context, ids []string, filters ...Filter) ([]Instance, error) {
	var found []Instance
	c := AWSCall{Operation: "DescribeInstances", IDs: ids}
	for _, f := range filters {
		awsRequire(f.Name == filterID || strings.HasPrefix(f.Name, filterTag),
			"DescribeInstances has no filter %q here", f.Name)
		if f.Name == filterID {
			c.IDs = f.Values
		}
	}
	err := a.call(ctx, c, func() *AWSError {
		if err := a.checkIDs(ids); err != nil {
			return err
		}
		asked := awsSorted(a.instances)
		if len(ids) > 0 {
			asked = nil
			for _, id := range ids {
				asked = append(asked, a.instances[id])
			}
		}
		for _, i := range asked {
			if !slices.ContainsFunc(filters, func(f Filter) bool { return !f.passes(i) }) {
				found = append(found, i.clone())
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// CreateTags adds or overwrites tags on all instances, or on none if one is unknown.
func (a *AWS) CreateTags(ctx context.Context, ids []string, tags map[string]string) error {
	keys := slices.Sorted(maps.Keys(tags))
	return a.call(ctx, AWSCall{Operation: "CreateTags", IDs: ids, Keys: keys}, func() *AWSError {
		if err := a.checkIDs(ids); err != nil {
			return err
		}
		for _, id := range ids {
			maps.Copy(a.instances[id].Tags, tags)
		}
		return nil
	})
}

func (a *AWS) checkIDs(ids []string) *AWSError {
	for _, id := range ids {
		if a.instances[id] == nil {
			return &AWSError{Code: "InvalidInstanceID.NotFound", Message: "The instance ID '" + id + "' does not exist",
				HTTPStatus: 400, Means: spot.ErrNotFound}
		}
	}
	return nil
}
