package spottest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

// Instance is an EC2 instance.
type Instance struct {
	ID             string // made up if empty
	State          string // pending, running, stopping, stopped, shutting-down, terminated; running if empty
	PrivateDNSName string // made of the IP address and the region if empty
	PrivateIP      string // made up if empty
	Zone           string // the region's a if empty
	Spot           bool
	Hibernates     bool // it was launched with hibernation configured
	Tags           map[string]string
}

func (i *Instance) clone() Instance {
	c := *i
	c.Tags = maps.Clone(i.Tags)
	return c
}

// groupTag is the tag by which EC2 shows an instance's group. "When you detach an instance from an Auto Scaling group,
// it removes only the aws:autoscaling:groupName tag" (Auto Scaling user guide, tagging life cycle); when in the course
// of detaching that happens is unverified, here it is at the end.
const groupTag = "aws:autoscaling:groupName"

// AddInstance adds an instance that is in no group, and returns it with all that was left empty filled in.
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
	awsMust(a.instances[i.ID] == nil, "there is an instance %s already", i.ID)
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

// privateDNSName is the name that EC2 gives by default; the oldest region has its own domain.
func privateDNSName(ip, region string) string {
	domain := region + ".compute.internal"
	if region == "us-east-1" {
		domain = "ec2.internal"
	}
	return "ip-" + strings.ReplaceAll(ip, ".", "-") + "." + domain
}

// Instance looks at an instance, past faults and log.
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
	awsMust(i != nil, "there is no instance %q", id)
	return i
}

// Filter is a filter of DescribeInstances: an instance passes that has one of the values. The model knows instance-id
// and tag:<key>.
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

// DescribeInstances answers the instances of these ids, or all; if one of them is unknown, an error and none. Of those,
// it leaves out what does not pass all filters; an id that only a filter names may be anything.
func (a *AWS) DescribeInstances(ctx context.Context, ids []string, filters ...Filter) ([]Instance, error) {
	var found []Instance
	c := AWSCall{Operation: "DescribeInstances", IDs: ids}
	for _, f := range filters {
		awsMust(f.Name == filterID || strings.HasPrefix(f.Name, filterTag), "DescribeInstances has no filter %q here", f.Name)
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

// CreateTags adds or overwrites tags; all of them on all of the instances, or none.
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
