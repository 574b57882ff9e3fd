// Short names for the types of the OpenAPI document. `npm run types` makes api.ts from it.

import type { components } from './api';

type Schemas = components['schemas'];

export type Condition = Schemas['Condition'];
export type Deployment = Schemas['Deployment'];
export type DeploymentExplained = Schemas['DeploymentExplained'];
export type DeviceExplained = Schemas['DeviceExplained'];
export type DeviceView = Schemas['DeviceView'];
export type EventView = Schemas['EventView'];
export type Figures = Schemas['Figures'];
export type FreezeView = Schemas['FreezeView'];
export type Generation = Schemas['Generation'];
export type Happening = Schemas['Happening'];
export type Hardware = Schemas['Hardware'];
export type Health = Schemas['Health'];
export type Phase = Schemas['Phase'];
export type Problem = Schemas['Problem'];
export type Replica = Schemas['Replica'];
export type RolloutStage = Schemas['RolloutStage'];
export type RolloutView = Schemas['RolloutView'];
export type Schedule = Schemas['Schedule'];
export type SlotReport = Schemas['SlotReport'];
export type Status = Schemas['Status'];
export type Strain = Schemas['Strain'];

export type FeedChange = Schemas['FeedChange'];
export type FeedSnapshot = Schemas['FeedSnapshot'];
export type History = Schemas['History'];
export type HistoryModel = Schemas['HistoryModel'];
export type HistoryPoint = Schemas['HistoryPoint'];
export type SessionView = Schemas['SessionView'];
