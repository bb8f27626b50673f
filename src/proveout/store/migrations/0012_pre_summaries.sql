-- Summaries of evaluations hold figures alone: the answers that changed most are sealed with the cases.
set search_path to proveout, public;

update evaluations set summary = summary - 'changed' where summary ? 'changed';
create index evaluations_of_app on evaluations (workspace, app, created desc);
