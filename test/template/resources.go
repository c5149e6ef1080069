package template

import (
	"fmt"
	"strings"
)

// ref is the result of Ref: a parameter's value or a resource's identifier.
func (r *resolver) ref(name string) any {
	if name == "AWS::NoValue" {
		return noValue{}
	}
	if value, ok := r.values[name]; ok {
		if r.Parameters[name].isList() {
			var list []any
			for _, element := range elements(value) {
				list = append(list, element)
			}
			return list
		}
		return value
	}
	switch resource := r.Resources[name]; resource.Type {
	case "AWS::SNS::Topic":
		return r.attribute(name, "TopicArn")
	case "AWS::SQS::Queue":
		return fmt.Sprintf("https://sqs.%s.amazonaws.com/%s/%s", Region, Account, r.named(name, "QueueName"))
	case "AWS::Logs::LogGroup":
		return r.named(name, "LogGroupName")
	case "AWS::Lambda::Function":
		return r.named(name, "FunctionName")
	}
	panic("the resolver does not support Ref for " + name)
}

// uniqueID stands for what EventBridge appends to the names of connections and API destinations.
const uniqueID = "00000000-0000-4000-8000-000000000000"

// attribute is the result of Fn::GetAtt.
func (r *resolver) attribute(id, attribute string) string {
	at := func(service, region, name string) string {
		return strings.Join([]string{"arn", partition, service, region, Account, name}, ":")
	}
	switch r.Resources[id].Type + "." + attribute {
	case "AWS::SNS::Topic.TopicArn":
		return at("sns", Region, r.named(id, "TopicName"))
	case "AWS::SQS::Queue.Arn":
		return at("sqs", Region, r.named(id, "QueueName"))
	case "AWS::SQS::Queue.QueueName":
		return r.named(id, "QueueName")
	case "AWS::Lambda::Function.Arn":
		return at("lambda", Region, "function:"+r.named(id, "FunctionName"))
	case "AWS::IAM::Role.Arn":
		return at("iam", "", "role/"+r.named(id, "RoleName"))
	case "AWS::Events::Connection.Arn":
		return at("events", Region, "connection/"+r.named(id, "Name")+"/"+uniqueID)
	case "AWS::Events::ApiDestination.Arn":
		return at("events", Region, "api-destination/"+r.named(id, "Name")+"/"+uniqueID)
	case "AWS::Events::Rule.Arn":
		return at("events", Region, "rule/"+r.named(id, "Name"))
	}
	panic("the resolver does not support " + id + "." + attribute)
}

// named returns the name that the template gives a resource. Every resource has one.
func (r *resolver) named(id, property string) string {
	settle := r.settle
	r.settle = false
	defer func() { r.settle = settle }()
	name, ok := r.value(r.Resources[id].Properties[property]).(string)
	if !ok {
		panic(id + " has no " + property)
	}
	return name
}
