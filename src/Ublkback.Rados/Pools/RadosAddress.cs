using Ublkback.Block;

namespace Ublkback.Rados.Pools;

/// <summary>A pool of a Ceph cluster, and as whom it is used.</summary>
/// <param name="Pool">The pool.</param>
/// <param name="Configuration">The path of ceph.conf; null for where Ceph looks for it.</param>
/// <param name="Id">The user without "client."; null for admin.</param>
public sealed record RadosAddress(string Pool, string? Configuration, string? Id)
{
    /// <summary>The option of a target that names the configuration.</summary>
    public const string ConfigurationOption = "conf";

    /// <summary>The option of a target that names the user.</summary>
    public const string IdOption = "id";

    /// <summary>
    /// How long a single operation may take; null for as long as it needs, as for guests. Whole seconds.
    /// </summary>
    public TimeSpan? Patience { get; init; }

    /// <summary>Where its cluster is configured, for people to read.</summary>
    public string Where => Configuration ?? "the usual places";

    /// <summary>Makes one of a pool and a target's options.</summary>
    /// <exception cref="TargetException">They say nothing that can be meant.</exception>
    public static RadosAddress Of(string pool, IReadOnlyDictionary<string, string> options)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (string.IsNullOrEmpty(pool)) throw new TargetException("no pool is given", "write rados:POOL");
        string? configuration = options.GetValueOrDefault(ConfigurationOption);
        if (configuration is not null && !configuration.StartsWith('/'))
            throw new TargetException(
                $"{ConfigurationOption}={configuration} is not an absolute path", "begin it with /");
        return new RadosAddress(pool, configuration, options.GetValueOrDefault(IdOption));
    }

    /// <inheritdoc/>
    public override string ToString() => $"rados:{Pool}";
}
