package eventbridge

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// healthEvent announces what AWS will do to instances: retire, stop or reboot them, or take their host out of service
// ("AWS Health events Amazon EventBridge schema" in the AWS Health User Guide).
//
// An announcement of many instances comes in pages. Each is an event with an id of its own, in any order, and names
// instances that no other page names; so each is handled by itself. What does come twice is the backup: AWS Health sends
// every event of a region to a second region too, and says so in it.
type healthEvent struct{}

const (
	serviceEC2      = "EC2"
	categoryChange  = "scheduledChange"
	statusClosed    = "closed"
	entityResolved  = "RESOLVED"
	startTimeLayout = "Mon, 02 Jan 2006 15:04:05 GMT"
)

// healthDetail is what is read of the detail. The rest cannot do harm by being otherwise than AWS documents it.
type healthDetail struct {
	Service   string         `json:"service"`
	TypeCode  string         `json:"eventTypeCode"`
	Category  string         `json:"eventTypeCategory"`
	StartTime string         `json:"startTime"`
	Status    string         `json:"statusCode"` // open, closed or upcoming
	Region    string         `json:"eventRegion"`
	Account   string         `json:"affectedAccount,omitempty"`
	Entities  []healthEntity `json:"affectedEntities"`
	Backup    any            `json:"backupEvent"` // "true" or "false"; as a boolean it would mean the same
}

type healthEntity struct {
	Value  string `json:"entityValue"`
	Status string `json:"status,omitempty"` // IMPAIRED, UNIMPAIRED, PENDING, RESOLVED or UNKNOWN
}

// healthWhole is the whole detail, as far as AWS requires it.
type healthWhole struct {
	healthDetail
	EventARN        string       `json:"eventArn"`
	Scope           string       `json:"eventScopeCode"`
	CommunicationID string       `json:"communicationId"`
	LastUpdated     string       `json:"lastUpdatedTime"`
	Description     []healthText `json:"eventDescription"`
	Page            string       `json:"page"`
	TotalPages      string       `json:"totalPages"`
}

type healthText struct {
	Language string `json:"language"`
	Text     string `json:"latestDescription"`
}

func (healthEvent) read(e envelope, in spot.Interruption) ([]spot.Interruption, error) {
	d, err := detailOf[healthDetail](e)
	if err != nil {
		return nil, err
	}
	instances := d.instances()
	if reason := d.idle(instances); reason != "" {
		return nil, e.nothing(reason)
	}
	if in.Start, err = d.start(); err != nil {
		return nil, e.wrong(`its "startTime" is not as in %q, and nobody can plan for an announcement without its time: %w`, startTimeLayout, err)
	}
	// The envelope tells where the event was sent to, these two whose instances they are: an organization's events come
	// to one account.
	in.Account, in.Region = cmp.Or(d.Account, in.Account), cmp.Or(d.Region, in.Region)
	all := make([]spot.Interruption, 0, len(instances))
	for _, instance := range instances {
		one, err := e.of(in, spot.ScheduledChange, instance)
		if err != nil {
			return nil, err
		}
		all = append(all, one...)
	}
	return all, nil
}

// idle is why there is nothing to do, or nothing.
func (d healthDetail) idle(instances []string) string {
	switch {
	case d.Service != serviceEC2:
		return fmt.Sprintf("it is about the service %q, not EC2", d.Service)
	case d.Category != categoryChange:
		return fmt.Sprintf("its category is %q: only a scheduledChange announces what will happen to an instance", d.Category)
	case strings.EqualFold(fmt.Sprint(d.Backup), "true"):
		return "it is the backup of an event that AWS Health sends to the instances' own region as well"
	case strings.EqualFold(d.Status, statusClosed):
		return "the change is closed"
	case d.ended():
		return fmt.Sprintf("%s says that the change is over or will not come", d.TypeCode)
	case len(instances) == 0:
		return "it names no EC2 instance that the change still affects"
	}
	return ""
}

// ended reports whether the event's code says that nothing is to come any more. AWS publishes no list of the codes: those
// of announcements end in _SCHEDULED or _EXPEDITED, and one is known to end in _COMPLETED; one that speaks of a
// cancellation is taken at its word. Everything else counts as an announcement.
func (d healthDetail) ended() bool {
	return slices.ContainsFunc([]string{"_CANCELLED", "_CANCELED", "_COMPLETED", "_COMPLETE"}, func(end string) bool {
		return strings.HasSuffix(d.TypeCode, end)
	})
}

// instanceARNStart begins the ARN of an instance. What stands there for region and account is not looked at.
var instanceARNStart = regexp.MustCompile(`^arn:[^:]*:ec2:[^:]*:[^:]*:instance/`)

// instances are the ids of the affected instances, each once. An entity may be named by its id or by its ARN, and may be
// a volume or a host. Only RESOLVED takes an instance out: AWS does not say that an UNIMPAIRED one, which works, will be
// left alone.
func (d healthDetail) instances() (ids []string) {
	for _, entity := range d.Entities {
		id := entity.Value
		if arn := instanceARNStart.FindString(id); arn != "" {
			id = id[len(arn):]
		}
		if !instanceID.MatchString(id) || strings.EqualFold(entity.Status, entityResolved) || slices.Contains(ids, id) {
			continue
		}
		ids = append(ids, id)
	}
	return ids
}

// start is the announced moment. AWS's own samples have days of one digit and of two, and days of the week that are
// wrong.
func (d healthDetail) start() (time.Time, error) {
	return parseTime(d.StartTime, "Mon, 2 Jan 2006 15:04:05 GMT", "Mon, 2 Jan 2006 15:04:05 UTC", "Mon, 2 Jan 2006 15:04:05 -0700")
}

func (healthEvent) write(in spot.Interruption) (any, string, error) {
	if in.Start.IsZero() {
		return nil, "", errors.New("a scheduled change needs the time of its start")
	}
	const code = "AWS_EC2_INSTANCE_RETIREMENT_SCHEDULED"
	return healthWhole{
		healthDetail: healthDetail{Service: serviceEC2, TypeCode: code, Category: categoryChange, Status: "upcoming",
			StartTime: in.Start.UTC().Format(startTimeLayout), Region: in.Region, Account: in.Account,
			Entities: []healthEntity{{Value: in.Instance, Status: "PENDING"}}, Backup: "false"},
		EventARN: fmt.Sprintf("arn:aws:health:%s::event/EC2/%s/%[2]s_%s", in.Region, code, in.EventID), Scope: "ACCOUNT_SPECIFIC",
		CommunicationID: in.EventID + "-1", LastUpdated: in.Time.UTC().Format(startTimeLayout),
		Description: []healthText{{"en_US", "The instance is going to be retired."}}, Page: "1", TotalPages: "1",
	}, in.Instance, nil
}
