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

// healthEvent announces that AWS will retire, stop or reboot instances, or maintain their host ("AWS Health events
// Amazon EventBridge schema" in the AWS Health User Guide).
//
// An announcement about many instances has several pages. Each page is a separate event with its own instances, so each
// is handled separately. AWS Health also sends a backup of every event to a second region and marks it as such.
type healthEvent struct{}

const (
	serviceEC2      = "EC2"
	categoryChange  = "scheduledChange"
	statusClosed    = "closed"
	entityResolved  = "RESOLVED"
	startTimeLayout = "Mon, 02 Jan 2006 15:04:05 GMT"
)

// healthDetail has the fields that are decoded. Errors in other fields do no harm.
type healthDetail struct {
	Service   string         `json:"service"`
	TypeCode  string         `json:"eventTypeCode"`
	Category  string         `json:"eventTypeCategory"`
	StartTime string         `json:"startTime"`
	Status    string         `json:"statusCode"` // open, closed or upcoming
	Region    string         `json:"eventRegion"`
	Account   string         `json:"affectedAccount,omitempty"`
	Entities  []healthEntity `json:"affectedEntities"`
	Backup    any            `json:"backupEvent"` // "true" or "false", as a string or a boolean
}

type healthEntity struct {
	Value  string `json:"entityValue"`
	Status string `json:"status,omitempty"` // IMPAIRED, UNIMPAIRED, PENDING, RESOLVED or UNKNOWN
}

// fullHealthDetail has all required fields.
type fullHealthDetail struct {
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

func (healthEvent) decode(e envelope, in spot.Interruption) ([]spot.Interruption, error) {
	d, err := detailOf[healthDetail](e)
	if err != nil {
		return nil, err
	}
	instances := d.instances()
	if reason := d.noActionReason(instances); reason != "" {
		return nil, e.noAction(reason)
	}
	if in.Start, err = d.start(); err != nil {
		return nil, e.invalid(`"startTime" must look like %q: %w`, startTimeLayout, err)
	}
	// The envelope names the account and region that received the event. With an organization view, the instances can
	// belong to another account.
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

// noActionReason says why the event needs no action. It is empty if action is needed.
func (d healthDetail) noActionReason(instances []string) string {
	switch {
	case d.Service != serviceEC2:
		return fmt.Sprintf("the service is %q, not EC2", d.Service)
	case d.Category != categoryChange:
		return fmt.Sprintf("the category is %q, not scheduledChange", d.Category)
	case strings.EqualFold(fmt.Sprint(d.Backup), "true"):
		return "this is the backup of an event that AWS Health also sends to the instances' region"
	case strings.EqualFold(d.Status, statusClosed):
		return "the change is closed"
	case d.ended():
		return fmt.Sprintf("%s means that the change has ended or was canceled", d.TypeCode)
	case len(instances) == 0:
		return "the event names no affected EC2 instance"
	}
	return ""
}

// ended reports whether the type code means that the change has ended or was canceled. AWS publishes no list of codes.
// Announcements end in _SCHEDULED or _EXPEDITED, and one known code ends in _COMPLETED. All other codes count as
// announcements.
func (d healthDetail) ended() bool {
	return slices.ContainsFunc([]string{"_CANCELLED", "_CANCELED", "_COMPLETED", "_COMPLETE"}, func(end string) bool {
		return strings.HasSuffix(d.TypeCode, end)
	})
}

// instanceARNStart matches the start of an instance's ARN, with any region and account.
var instanceARNStart = regexp.MustCompile(`^arn:[^:]*:ec2:[^:]*:[^:]*:instance/`)

// instances returns the IDs of the affected instances without duplicates. An entity is an ID or an ARN, possibly of a
// volume or host. Only RESOLVED excludes an instance: AWS may still change an UNIMPAIRED one.
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

// start parses the announced time. AWS's samples have one-digit and two-digit days, and wrong weekdays.
func (d healthDetail) start() (time.Time, error) {
	return parseTime(d.StartTime, "Mon, 2 Jan 2006 15:04:05 GMT", "Mon, 2 Jan 2006 15:04:05 UTC", "Mon, 2 Jan 2006 15:04:05 -0700")
}

func (healthEvent) encode(in spot.Interruption) (any, string, error) {
	if in.Start.IsZero() {
		return nil, "", errors.New("a scheduled change needs a start time")
	}
	const code = "AWS_EC2_INSTANCE_RETIREMENT_SCHEDULED"
	return fullHealthDetail{
		healthDetail: healthDetail{Service: serviceEC2, TypeCode: code, Category: categoryChange, Status: "upcoming",
			StartTime: in.Start.UTC().Format(startTimeLayout), Region: in.Region, Account: in.Account,
			Entities: []healthEntity{{Value: in.Instance, Status: "PENDING"}}, Backup: "false"},
		EventARN: fmt.Sprintf("arn:aws:health:%s::event/EC2/%s/%[2]s_%s", in.Region, code, in.EventID), Scope: "ACCOUNT_SPECIFIC",
		CommunicationID: in.EventID + "-1", LastUpdated: in.Time.UTC().Format(startTimeLayout),
		Description: []healthText{{"en_US", "The instance is going to be retired."}}, Page: "1", TotalPages: "1",
	}, in.Instance, nil
}
