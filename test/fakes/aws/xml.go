package aws

import (
	"encoding/xml"

	"github.com/castai/kops-spot/internal/spottest"
)

// element is an XML element with a text or more elements.
type element struct {
	XMLName xml.Name
	Space   string    `xml:"xmlns,attr,omitempty"`
	Text    string    `xml:",chardata"`
	Inside  []element `xml:",any"`
}

func text(name, value string) element {
	return element{XMLName: xml.Name{Local: name}, Text: value}
}

func group(name string, inside ...element) element {
	return element{XMLName: xml.Name{Local: name}, Inside: inside}
}

// list is a list in the format of the services: each element in <item> in EC2, in <member> in Auto Scaling.
func list[T any](name, part string, of []T, inside func(T) []element) element {
	e := group(name)
	for _, v := range of {
		e.Inside = append(e.Inside, group(part, inside(v)...))
	}
	return e
}

// requestID is in every response.
const requestID = "00000000-0000-0000-0000-000000000001"

// envelope is the response of an operation. Auto Scaling wraps its content in <…Result>, EC2 does not.
func envelope(op string, inside []element) element {
	e := group(op + "Response")
	if spottest.IsEC2(op) {
		e.Space = "http://ec2.amazonaws.com/doc/2016-11-15/"
		e.Inside = append([]element{text("requestId", requestID)}, inside...)
		return e
	}
	e.Space = "http://autoscaling.amazonaws.com/doc/2011-01-01/"
	e.Inside = []element{group(op+"Result", inside...), group("ResponseMetadata", text("RequestId", requestID))}
	return e
}

// failure is an error in the format of the service.
func failure(to string, e *spottest.AWSError) element {
	if to == "ec2" {
		return group("Response",
			group("Errors", group("Error", text("Code", e.Code), text("Message", e.Message))),
			text("RequestID", requestID))
	}
	whose := "Sender"
	if e.HTTPStatus >= 500 {
		whose = "Receiver"
	}
	return group("ErrorResponse",
		group("Error", text("Type", whose), text("Code", e.Code), text("Message", e.Message)),
		text("RequestId", requestID))
}
