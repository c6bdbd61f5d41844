using System.Globalization;
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

    /// <summary>The option that says how long anything may take: seconds.</summary>
    public const string TimeoutOption = "timeout";

    /// <summary>The options of a store in a pool.</summary>
    public static readonly IReadOnlyList<string> Options = [ConfigurationOption, IdOption, TimeoutOption];

    private static readonly TimeSpan CommandPatience = TimeSpan.FromMinutes(1);

    /// <summary>How long anything may take, as people set it; null for as long as it needs. Whole seconds.</summary>
    public TimeSpan? Timeout { get; init; }

    /// <summary>
    /// Whether it is used by a command, which ends when an operation takes too long. A guest's disk waits.
    /// </summary>
    public bool IsForCommand { get; init; }

    /// <summary>How long a single operation may take; null for as long as it needs.</summary>
    internal TimeSpan? Patience => Timeout ?? (IsForCommand ? CommandPatience : null);

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
        return new RadosAddress(pool, configuration, options.GetValueOrDefault(IdOption))
        {
            Timeout = options.TryGetValue(TimeoutOption, out string? text) ? ParseTimeout(text) : null,
        };
    }

    /// <inheritdoc/>
    public override string ToString() => $"rados:{Pool}";

    private static TimeSpan ParseTimeout(string text) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int seconds)
            && seconds is > 0 and <= 86400
            ? TimeSpan.FromSeconds(seconds)
            : throw new TargetException($"{TimeoutOption}={text} is no number of seconds from 1 to 86400");
}
