-- Conversations outlive the promotion of another release. Rollouts keep the weights that they published, and several scores.
set search_path to proveout, public;

alter table routes add column retired jsonb;
drop trigger routes_changed on routes;
create trigger routes_changed after insert or update or delete on routes
    for each row execute function configuration_changed_v1();
update rollouts r
set progress = r.progress - 'score' || jsonb_build_object(
    'weights', coalesce((select e.facts -> 'weights' from events e
                         where e.workspace = r.workspace and e.kind = 'releases:rollout:started'
                           and e.facts ->> 'rollout' = r.id limit 1), '{}'),
    'scores', case when r.progress ? 'score' then jsonb_build_object('score', r.progress -> 'score') else '{}' end);
